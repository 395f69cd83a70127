"""Adapters in half precision, as the package ships them: every reader takes them and computes in float32.

The tolerances: a weight is rounded by at most 2^-8 (bfloat16) or 2^-11 (float16) of itself, A and B each, so that an
entry of B A moves by at most 2^-7 or 2^-10 of the sum of its products' sizes. Margins may move by twice as much of 1.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ship_adapter
import torch
from safetensors.torch import load_file, save_file

from prorank import Reranker
from prorank.files import sha256_file
from prorank.model import int8_cache
from prorank.model.base import load_base
from prorank.model.checkpoint import stack_of
from prorank.model.lora import Merged, plain_pairs
from prorank.model.manifest import read_manifest, write_manifest
from prorank.model.weights import FolderWeights
from testkit.small_texts import DOCUMENTS, QUERY

TOLERANCE = {"float16": 2**-10, "bfloat16": 2**-7}


def halved(checkpoint: Path, folder: Path, dtype: str) -> Path:
    shutil.copytree(checkpoint, folder)
    file = folder / ship_adapter.WEIGHTS
    weights, error = ship_adapter.rounded(load_file(file), dtype)
    assert 0 < error < TOLERANCE[dtype] / 2
    save_file(weights, file)
    manifest = read_manifest(folder)
    assert manifest is not None
    write_manifest(folder, replace(manifest, files={**manifest.files, file.name: sha256_file(file)}))
    return folder


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
def test_every_reader_takes_them(dtype: str, base: Path, checkpoint: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    half = halved(checkpoint, tmp_path / "mine", dtype)
    assert (half / ship_adapter.WEIGHTS).stat().st_size < 0.7 * (checkpoint / ship_adapter.WEIGHTS).stat().st_size
    exact, pairs = plain_pairs(checkpoint), plain_pairs(half)
    assert exact is not None
    assert pairs is not None
    for name, pair in pairs.items():
        assert pair.a.dtype == pair.b.dtype == np.float32
        moved = np.abs(pair.b @ pair.a - exact[name].b @ exact[name].a)
        assert (moved <= 1.01 * TOLERANCE[dtype] * (np.abs(exact[name].b) @ np.abs(exact[name].a))).all()
    numpys = Merged(FolderWeights(base), [pairs], [half])
    pefts = PeftModel.from_pretrained(load_base(str(base)).model, str(half)).merge_and_unload().state_dict()
    model = Reranker.from_pretrained(half, backend="torch", dtype="float32")
    ours = model.backend.model.state_dict()  # type: ignore[attr-defined]  # what export writes, to GGUF too
    for name in exact:
        for found in (pefts, ours):
            assert found[f"{name}.weight"].dtype == torch.float32
            np.testing.assert_allclose(found[f"{name}.weight"], numpys.read(f"{name}.weight"), atol=1e-6)
    reference = Reranker.from_pretrained(checkpoint, backend="torch", dtype="float32")
    wanted = reference.margins(QUERY, DOCUMENTS)
    np.testing.assert_allclose(model.margins(QUERY, DOCUMENTS), wanted, rtol=0, atol=2 * TOLERANCE[dtype])
    assert model.weights_sha256 != reference.weights_sha256, "other weights, another hash"
    assert model.fingerprint != reference.fingerprint
    folders = set()
    for one in (checkpoint, half):
        base_name, adapters, manifest = stack_of(str(one))
        assert manifest is not None
        folders.add(int8_cache.int8_of("mine", base_name, adapters, manifest).folder)
    assert len(folders) == 2, "an int8 model each"


def test_rounding_that_loses_is_refused_and_halves_stay() -> None:
    for value in (1e5, 1e-8):  # beyond float16's range, and below its digits
        with pytest.raises(SystemExit, match=r"a: float16 changes it by .*--dtype bfloat16"):
            ship_adapter.rounded({"a": torch.full((2,), value)}, "float16")
        assert ship_adapter.rounded({"a": torch.full((2,), value)}, "bfloat16")[1] < 2**-8
    kept, error = ship_adapter.rounded({"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.zeros(2)}, "float16")
    assert (kept["a"].dtype, kept["b"].dtype, error) == (torch.bfloat16, torch.float16, 0.0)
