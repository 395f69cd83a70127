"""The int8 model made with numpy: what its file holds, adapters merged as peft merges them, and the cache around it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prorank import Reranker
from prorank.backends.graph import HEAD
from prorank.backends.mapped import map_tensors
from prorank.backends.native.engine import GROUP, WEIGHTS
from prorank.model import int8, int8_cache
from prorank.model.architecture import UnsupportedError
from prorank.model.base import BaseError, load_base
from prorank.model.checkpoint import stack_of
from prorank.model.lora import Merged, plain_pairs
from prorank.model.smoothing import FILE, Smoothed
from prorank.model.weights import FolderWeights
from testkit.adapters import SIZES, with_adapter
from testkit.native import runs_here
from testkit.small_texts import DOCUMENTS, QUERY
from testkit.tiny_models import make_tiny
from testkit.tiny_tokenizers import tiny_tokenizer

LABELS = (5, 6)


def test_the_file_holds_the_weights_spread_and_rounded(base: Path, tmp_path: Path) -> None:
    weights = FolderWeights(base)
    int8.write_int8(weights, tmp_path)
    int8.write_labels(weights, LABELS, tmp_path)
    tensors, facts = map_tensors(tmp_path / WEIGHTS)
    assert (facts["layers"], facts["hidden"], facts["format"]) == ("2", "64", "1")
    again = load_file(tmp_path / WEIGHTS)  # the library's own reader takes the file, too
    assert again.keys() == tensors.keys()
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)
    matrix = int8.hadamard(GROUP)
    np.testing.assert_allclose(matrix @ matrix, np.eye(GROUP), atol=1e-6)
    read = {name: weights.read(f"model.layers.1.mlp.{name}_proj.weight") for name in ("gate", "up", "down")}
    gates = [part for i in range(0, 128, 32) for part in (read["gate"][i : i + 32], read["up"][i : i + 32])]
    for part, wanted in (("down", read["down"]), ("gate_up", np.concatenate(gates))):
        grid, step = tensors[f"layers.1.{part}.weight"], tensors[f"layers.1.{part}.scale"]
        assert grid.shape == wanted.shape
        assert np.abs(grid.reshape(*step.shape, GROUP).astype(int)).max(-1).min() >= 127  # the largest sets the step
        back = (grid.reshape(*step.shape, GROUP) * step[:, :, None]) @ matrix
        off = (back.reshape(wanted.shape) - wanted).reshape(*step.shape, GROUP)
        assert (np.linalg.norm(off, axis=-1) <= 0.5 * np.abs(step) * GROUP**0.5 * 1.001).all()
    biases = [weights.read(f"model.layers.0.self_attn.{name}_proj.bias") for name in "qkv"]
    np.testing.assert_array_equal(tensors["layers.0.qkv.bias"][:128], np.concatenate(biases))
    embeddings = weights.read("model.embed_tokens.weight")
    np.testing.assert_array_equal(tensors["embeddings"], embeddings.astype(np.float16))
    head = weights.read("lm_head.weight" if weights.shape("lm_head.weight") else "model.embed_tokens.weight")
    np.testing.assert_array_equal(load_file(tmp_path / HEAD)["rows"], head[list(LABELS)])


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}], ids=["plain", "rslora"])
def test_adapters_are_merged_as_peft_merges_them(settings: dict[str, Any], base: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = with_adapter(base, tmp_path / "mine", **settings)
    pairs = plain_pairs(folder)
    assert pairs is not None
    merged = Merged(FolderWeights(base), [pairs], [folder])
    theirs = PeftModel.from_pretrained(load_base(str(base)).model, str(folder)).merge_and_unload().state_dict()
    changed = 0
    for name, wanted in theirs.items():
        if merged.shape(name) is not None:
            np.testing.assert_allclose(merged.read(name), wanted.numpy(), atol=1e-6, err_msg=name)
            np.testing.assert_allclose(merged.read(name, 1, 5), wanted.numpy()[1:5], atol=1e-6)
            changed += not np.array_equal(merged.read(name), FolderWeights(base).read(name))
    assert changed == len(pairs) == 8
    assert plain_pairs(with_adapter(base, tmp_path / "dora", use_dora=True)) is None
    other = make_tiny(tmp_path / "other", "qwen2", tiny_tokenizer(), **{**SIZES, "intermediate_size": 192})
    with pytest.raises(BaseError, match=r"does not fit the base: model\.layers\.0"):
        Merged(FolderWeights(other), [pairs], [folder])


@runs_here
def test_a_checkpoint_runs_on_our_engine_without_an_export(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = Reranker.from_pretrained(checkpoint, dtype="float32", backend="torch")
    wanted = reference.margins(QUERY, DOCUMENTS)
    ours = Reranker.from_pretrained(checkpoint, backend="native")
    assert "making the int8 model" in capsys.readouterr().err
    assert ours.backend.name.startswith("native")
    assert ours.weights_sha256 == reference.weights_sha256
    assert ours.fingerprint != reference.fingerprint
    got = ours.margins(QUERY, DOCUMENTS)
    assert np.corrcoef(got, wanted)[0, 1] > 0.9
    again = Reranker.from_pretrained(checkpoint, backend="native")
    assert capsys.readouterr().err == ""
    assert np.array_equal(again.margins(QUERY, DOCUMENTS), got)
    (listed,) = int8_cache.cached_int8()
    assert listed[0].startswith("mine-")
    for flag, value in (("dtype", "float32"), ("device", "cuda")):
        with pytest.raises(ValueError, match=flag):
            Reranker.from_pretrained(checkpoint, backend="native", **{flag: value})
    with pytest.raises(UnsupportedError, match="plain LoRA"):
        Reranker.from_pretrained(
            with_adapter(Path(reference.manifest.base_name), tmp_path / "dora", use_dora=True),  # type: ignore[union-attr]
            backend="native",
        )


def made(checkpoint: Path) -> int8_cache.Int8:
    base_name, adapters, manifest = stack_of(str(checkpoint))
    assert manifest is not None
    return int8_cache.int8_of(checkpoint.name, base_name, adapters, manifest)


def test_damaged_files_in_the_cache_are_made_again(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(checkpoint).folder
    whole = (folder / WEIGHTS).read_bytes()
    for name in (WEIGHTS, HEAD, "tokenizer.json", "made.json"):
        with open(folder / name, "r+b") as file:
            file.truncate(10)
        capsys.readouterr()
        assert made(checkpoint).folder == folder
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 2
        assert f"{name} is damaged: the model is made again" in said[0]
        assert (folder / WEIGHTS).read_bytes() == whole


def test_other_weights_other_labels_other_folders(base: Path, checkpoint: Path, tmp_path: Path) -> None:
    folders = {made(checkpoint).folder, made(with_adapter(base, tmp_path / "mine", use_rslora=True)).folder}
    base_name, adapters, manifest = stack_of(str(checkpoint))
    assert manifest is not None
    folders.add(int8_cache.int8_of("mine", base_name, adapters, replace(manifest, label_ids=(7, 8))).folder)
    folders.add(int8_cache.int8_of("mine", base_name, [], manifest).folder)
    assert len(folders) == 4


def test_two_first_starts_make_it_once(checkpoint: Path) -> None:
    code = (
        "import sys; from prorank.model import checkpoint, int8_cache\n"
        "print(int8_cache.int8_of('mine', *checkpoint.stack_of(sys.argv[1])).folder)"
    )
    command = [sys.executable, "-c", code, str(checkpoint)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    out, err = zip(*(process.communicate(timeout=200) for process in both), strict=True)
    assert [process.returncode for process in both] == [0, 0]
    assert out[0] == out[1]
    assert "".join(err).count("making the int8 model") == 1
    folder = Path(out[0].strip())
    assert [file.name for file in folder.parent.iterdir() if file.is_dir()] == [folder.name]


def test_scales_beside_the_adapter_are_those_of_smoothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tool's file, applied with numpy, gives the weights that export's smoothing gives; a folder of its own."""
    import smoothing as tool

    from prorank.export.smoothing import smoothed
    from prorank.export.targets import typical_run

    folder = tmp_path / "mine"
    shutil.copytree(checkpoint, folder)
    plain = made(folder).folder
    monkeypatch.setattr(sys, "argv", ["smoothing.py", str(folder)])
    assert tool.main() == 0
    assert "smoothing.safetensors" in capsys.readouterr().out
    assert made(folder).folder != plain
    reranker = Reranker.from_pretrained(folder, dtype="float32", backend="torch")
    assert reranker.weights_sha256 == Reranker.from_pretrained(checkpoint, dtype="float32").weights_sha256
    base_name, adapters, _ = stack_of(str(folder))
    pairs = plain_pairs(adapters[0])
    assert pairs is not None
    ours = Smoothed(Merged(FolderWeights(Path(base_name)), [pairs], adapters), folder / FILE)
    model: Any = reranker.backend.model  # type: ignore[attr-defined]
    changed = 0
    with smoothed(model, typical_run(reranker)) as same:
        assert same
        for name, wanted in model.state_dict().items():
            if ours.shape(name) is not None:
                found, most = ours.read(name), float(wanted.abs().max())
                np.testing.assert_allclose(found, wanted.numpy(), atol=2e-3 * most, err_msg=name)  # float16: 1e-3
                np.testing.assert_array_equal(ours.read(name, 1, 5), found[1:5])
                changed += not np.array_equal(found, FolderWeights(Path(base_name)).read(name))
    assert changed == len(model.base_model.layers) * 9  # 7 weights, 2 norms; the biases are zeros here
    scales = load_file(folder / FILE)

    class Biased(FolderWeights):
        def read(self, name: str, start: int = 0, stop: int | None = None) -> Any:
            found = super().read(name, start, stop)
            return np.ones_like(found) if name.endswith("v_proj.bias") else found

    found = Smoothed(Biased(Path(base_name)), folder / FILE).read("model.layers.1.self_attn.v_proj.bias")
    np.testing.assert_allclose(found, 1 / scales["layers.1.values"].astype(np.float32), rtol=1e-6)
    save_file({**scales, "layers.1.up": scales["layers.1.up"][:5]}, folder / FILE)
    with pytest.raises(BaseError, match=r"smoothing.safetensors: layers\.1\.up is missing, of another size"):
        Smoothed(FolderWeights(Path(base_name)), folder / FILE)
    (folder / FILE).write_bytes(b"short")
    with pytest.raises(BaseError, match=r"smoothing.safetensors"):
        Smoothed(FolderWeights(Path(base_name)), folder / FILE)


def test_a_full_disk_and_a_cache_that_cannot_be_written_to(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(int8_cache, "write_int8", full)
        with pytest.raises(BaseError, match=r"mine cannot be kept in the cache .*: the disk is full; PRORANK_CACHE"):
            made(checkpoint)
    assert int8_cache.cached_int8() == []
    assert not [f for f in (Path(os.environ["PRORANK_CACHE"]) / "int8").iterdir() if f.is_dir()], "nothing half made"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRORANK_CACHE", str(tmp_path / "file"))  # a folder cannot be made below a file
    with pytest.raises(BaseError, match=r"cannot be kept in the cache .*: Not a directory"):
        made(checkpoint)


def test_bases_that_do_not_fit_are_named(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    _, adapters, manifest = stack_of(str(checkpoint))
    assert manifest is not None
    with pytest.raises(UnsupportedError, match="not 'someone/model'"):
        int8_cache.int8_of("mine", "someone/model", adapters, manifest)
    changed = make_tiny(tmp_path / "changed", "qwen2", tiny_tokenizer(), seed=3, **SIZES)
    with pytest.raises(BaseError, match="was trained on a base with sha256"):
        int8_cache.int8_of("mine", str(changed), adapters, manifest)
    wide = make_tiny(tmp_path / "wide", "qwen2", tiny_tokenizer(), **{**SIZES, "intermediate_size": 96})
    with pytest.raises(UnsupportedError, match="intermediate_size that 64 divides, not 96"):
        int8_cache.int8_of("mine", str(wide), [], manifest)
