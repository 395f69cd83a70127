"""Where our own engine cannot run it says so, and why."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from native_parts import COMMON, runs_here
from prorank import Reranker
from prorank.backends.native import compiler, engine
from prorank.export.targets import export
from tiny_models import make_tiny


@runs_here
def test_damaged_weights_and_unknown_layouts_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(ValueError, match=r"native.safetensors is missing"):
        engine.NativeBackend(tmp_path, (0, 1))
    (tmp_path / engine.WEIGHTS).write_bytes(b"\xff" * 32)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        engine.NativeBackend(tmp_path, (0, 1))
    save_file({"norm": np.zeros(4, np.float32)}, tmp_path / engine.WEIGHTS, metadata={"format": "0"})
    with pytest.raises(ValueError, match="layout '0'"):
        engine.NativeBackend(tmp_path, (0, 1))


@pytest.mark.parametrize(
    ("architecture", "sizes", "message"),
    [
        ("llama", {}, "hidden_size that 64 divides, not 32"),
        ("llama", {**COMMON, "intermediate_size": 96}, "intermediate_size"),
        ("llama", {**COMMON, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
        ("gemma3", COMMON, "not gemma3"),
        ("mistral", {**COMMON, "sliding_window": 64}, "sliding windows"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    architecture: str, sizes: dict[str, Any], message: str, tokenizer: Any, tmp_path: Path
) -> None:
    folder = make_tiny(tmp_path / "model", architecture, tokenizer, **sizes)
    reranker = Reranker.from_pretrained(folder, dtype="float32", max_length=160)
    with pytest.raises(ValueError, match=message):
        export(reranker, "native-int8", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_processor_or_compiler_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / engine.WEIGHTS).write_bytes(b"")
    monkeypatch.setattr(engine, "processor_features", lambda: frozenset({"avx2", "f16c"}))
    with pytest.raises(ImportError, match="has no fma; export to openvino-int8"):
        engine.NativeBackend(tmp_path, (0, 1))
    monkeypatch.setenv("CC", "no-such-compiler -x")
    with pytest.raises(ImportError, match="no-such-compiler"):
        compiler.compiled(tmp_path / engine.WEIGHTS, ["-O3"])
    monkeypatch.setenv("CC", "false")
    with pytest.raises(ImportError, match="exit code 1"):
        compiler.compiled(tmp_path / engine.WEIGHTS, ["-O3"])
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match="no C compiler"):
        compiler.compiler()
