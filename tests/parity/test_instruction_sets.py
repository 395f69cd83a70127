"""The same scores at every level of instructions that this machine has: torch, OpenVINO and ONNX Runtime.

Libraries choose their instructions when they start, so that each level is a process of its own. `make levels` runs the
other tests of scores in the same way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank import Reranker
from prorank.backends.processor import LEVELS, Level, level
from prorank.backends.tolerances import FIDELITY
from testkit.small_texts import DOCUMENTS, QUERY

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

EXPORTS = ("openvino-f32", "openvino-int8", "onnx-int8")
REPO = Path(__file__).resolve().parents[2]
CHILD = """
import json, sys
import torch
from prorank import Reranker
from prorank.backends.processor import level
from testkit.small_texts import DOCUMENTS, QUERY

root, targets = sys.argv[1], sys.argv[2:]
torch.set_num_threads(1)
found = {"level": level(), "torch": torch.backends.cpu.get_cpu_capability(), "margins": {}, "auto": ""}
found["auto"] = Reranker.from_pretrained(f"{root}/checkpoint", max_length=160).backend.name
for dtype in ("float32", "bfloat16"):
    reranker = Reranker.from_pretrained(f"{root}/checkpoint", dtype=dtype, max_length=160)
    found["margins"][reranker.backend.name] = reranker.margins(QUERY, DOCUMENTS).tolist()
for target in targets:
    reranker = Reranker.from_pretrained(f"{root}/{target}", threads=2)
    found["margins"][reranker.backend.name] = reranker.margins(QUERY, DOCUMENTS).tolist()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def root(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint and its exports."""
    from transformers import AutoTokenizer

    from prorank.export.targets import export
    from testkit.tiny_models import make_tiny

    root = tmp_path_factory.mktemp("levels")
    make_tiny(root / "checkpoint", "llama", AutoTokenizer.from_pretrained(base_folder))
    reranker = Reranker.from_pretrained(root / "checkpoint", dtype="float32", max_length=160)
    for target in EXPORTS:
        export(reranker, target, root / target)
    return root


@pytest.fixture(scope="module")
def wanted(root: Path) -> np.ndarray:
    """Margins in float32, at the level of this process."""
    return Reranker.from_pretrained(root / "checkpoint", dtype="float32", max_length=160).margins(QUERY, DOCUMENTS)


def lowered(to: Level, root: Path) -> dict[str, Any]:
    """What a process at a level finds."""
    paths = [str(REPO / "src"), str(REPO / "tests")]
    environment = {**os.environ, **to.environment, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(root), *EXPORTS],
        env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("to", LEVELS, ids=lambda one: one.name)
def test_margins_are_float32s_at_every_level(to: Level, root: Path, wanted: np.ndarray) -> None:
    here = level()
    if here is None:
        pytest.skip("the levels of this processor are not known (no Linux on x86)")
    names = [one.name for one in LEVELS]
    if not here or names.index(to.name) > names.index(here):
        pytest.skip(f"this processor, or its environment, has no {to.name}: {here or 'less than avx2'}")
    found = lowered(to, root)
    assert found["level"] == to.name
    assert found["torch"] == to.torch.upper()
    multiplies_bf16 = to.name in ("avx512_bf16", "amx")
    assert found["auto"] == f"torch-cpu-{'bfloat16' if multiplies_bf16 else 'float32'}"
    assert len(found["margins"]) == 2 + len(EXPORTS)
    for name, margins in found["margins"].items():
        limit = FIDELITY[name]
        differences = np.abs(np.array(margins) - wanted) / max(1.0, float(wanted.std()))
        assert np.sqrt(np.mean(differences**2)) <= limit.typical, name
        assert differences[:5].max() <= limit.largest, name


def test_below_every_level_is_one_line(root: Path, tmp_path: Path) -> None:
    """oneDNN at SSE4.1: OpenVINO cannot, and says what it needs."""
    passages = tmp_path / "passages.txt"
    passages.write_text("a germ\n", "utf-8")
    arguments = ["rank", "--query", QUERY, "--documents", str(passages), "--model", str(root / "openvino-f32")]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "SSE41", "PYTHONPATH": str(REPO / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "prorank.cli.main", *arguments],
        env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    if level() is None:
        pytest.skip("ONEDNN_MAX_CPU_ISA is for x86")
    assert done.returncode == 2
    assert "it needs AVX2 at least" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
