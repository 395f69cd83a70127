"""Where our own engine cannot run it says so, and why."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank import Reranker
from prorank.backends.graph import HEAD
from prorank.backends.mapped import map_tensors
from prorank.backends.native import compiler, engine
from prorank.export.targets import export
from testkit.native import COMMON, runs_here, write_random
from testkit.tiny_models import make_tiny


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


@runs_here
def test_every_cut_and_every_wrong_tensor_is_one_line(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = write_random(tmp_path)
    path = tmp_path / engine.WEIGHTS
    whole, facts = path.read_bytes(), map_tensors(path)[1]
    for length in [*range(0, 64, 8), *range(64, len(whole), len(whole) // 20), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"native\.safetensors: not a readable safetensors file"):
            engine.NativeBackend(tmp_path, (0, 1))
    path.write_bytes(b"\x02" + bytes(7) + b"[]")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        engine.NativeBackend(tmp_path, (0, 1))
    for name, tensor in tensors.items():
        save_file({other: x for other, x in tensors.items() if other != name}, path, metadata=facts)
        with pytest.raises(ValueError, match=f"damaged: {name} is missing|damaged: {name} is .*wanted"):
            engine.NativeBackend(tmp_path, (0, 1))
        save_file({**tensors, name: np.concatenate([tensor, tensor])}, path, metadata=facts)
        if name != "embeddings":
            with pytest.raises(ValueError, match=f"damaged: {name} is .*wanted"):
                engine.NativeBackend(tmp_path, (0, 1))
    for name, value in (
        ("size", "10"),
        ("layers", "4"),
        ("heads", "3"),
        ("hidden", "x"),
        ("inner", "-64"),
        ("key_heads", "0"),
    ):
        save_file(tensors, path, metadata={**facts, name: value})
        with pytest.raises(ValueError, match="damaged"):
            engine.NativeBackend(tmp_path, (0, 1))
    path.write_bytes(whole)
    labels = tmp_path / HEAD
    save_file({**load_file(labels), "rows": np.zeros((2, 64), np.float32)}, labels)
    with pytest.raises(ValueError, match=r"label rows of shape \(2, 64\)"):
        engine.NativeBackend(tmp_path, (0, 1))
    labels.write_bytes(labels.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"labels\.safetensors: not a readable"):
        engine.NativeBackend(tmp_path, (0, 1))


@pytest.fixture
def tiny_source(tmp_path: Path) -> Path:
    source = tmp_path / "source" / "tiny.c"
    source.parent.mkdir()
    source.write_text("int forty_two(void) { return 42; }\n", "utf-8")
    try:
        compiler.compiler()
    except ImportError as error:
        pytest.skip(str(error))
    return source


def test_a_cache_that_cannot_be_written_to_costs_a_warning(
    tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("PRORANK_CACHE", str(tmp_path / "file" / "below"))  # root may write into any folder
    with caplog.at_level(logging.WARNING):
        assert compiler.compiled(tiny_source, []).forty_two() == 42
    assert "the cache cannot be written to" in caplog.text
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no-such-folder"))
    with pytest.raises(ImportError, match="no folder to compile in"):
        compiler.compiled(tiny_source, [])


def test_a_damaged_library_is_made_anew(tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRORANK_CACHE", str(tmp_path / "cache"))
    with ThreadPoolExecutor(4) as pool:  # first starts at once
        found = list(pool.map(lambda _: compiler.compiled(tiny_source, ["-O1"]).forty_two(), range(4)))
    assert found == [42] * 4
    made = list((tmp_path / "cache").rglob("*"))
    assert [path.suffix for path in made if path.is_file()] == [".so"]
    library = next(path for path in made if path.is_file())
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("PRORANK_CACHE", str(other))
    (other / "native").mkdir()
    (other / "native" / library.name).write_bytes(b"not a library")
    assert compiler.compiled(tiny_source, ["-O1"]).forty_two() == 42
    assert (other / "native" / library.name).read_bytes()[:4] == library.read_bytes()[:4]
    (tiny_source).write_text('#error "no such thing"\n', "utf-8")
    with pytest.raises(ImportError, match=r"error.*no such thing"):
        compiler.compiled(tiny_source, ["-O1"])


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
