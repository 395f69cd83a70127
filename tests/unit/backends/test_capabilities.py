"""What backends say of themselves: all of them do, in the types that callers rely on, and what they say is so."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import prorank.backends
from prorank import Reranker
from prorank.backends.fake import FakeBackend
from prorank.early_exit.readouts import Cascade
from prorank.export.targets import export
from prorank.model.loading import early_exits
from prorank.scoring import Backend, Capabilities
from testkit.native import HERE, write_random

WIDTHS = {"NativeBackend": 128, "TorchBackend": 32}
"""Hidden sizes of those that have layers to exit from."""


def torch(tiny: Path, _: Path) -> Backend:
    return Reranker.from_pretrained(tiny, backend="torch", dtype="float32").backend


def remote(_: Path, __: Path) -> Backend:
    pytest.importorskip("httpx")
    from prorank.backends.remote import RemoteBackend

    return RemoteBackend("http://127.0.0.1:9/v1", "tiny", (0, 1))


def native(_: Path, folder: Path) -> Backend:
    if not HERE:
        pytest.skip("this processor has none of our engine's instruction sets")
    from prorank.backends.native.engine import NativeBackend

    write_random(folder)
    return NativeBackend(folder, (0, 1), threads=2)


def exported(target: str, *libraries: str) -> Callable[[Path, Path], Backend]:
    def opened(tiny: Path, folder: Path) -> Backend:
        for library in libraries:
            pytest.importorskip(library)
        reference = Reranker.from_pretrained(tiny, backend="torch", dtype="float32", max_length=160)
        return Reranker.from_pretrained(export(reference, target, folder / target), threads=2).backend

    return opened


OPENED: dict[str, Callable[[Path, Path], Backend]] = {
    "FakeBackend": lambda _, __: FakeBackend(),
    "LlamaCppBackend": exported("gguf", "llama_cpp", "gguf"),
    "NativeBackend": native,
    "OnnxBackend": exported("onnx", "onnx", "onnxruntime"),
    "OpenVinoBackend": exported("openvino-f32", "openvino"),
    "RemoteBackend": remote,
    "SeqClsBackend": exported("seq-cls"),
    "TorchBackend": torch,
}


def test_every_class_that_gives_label_logits_is_tested_here() -> None:
    found = set()
    for module in pkgutil.walk_packages(prorank.backends.__path__, "prorank.backends."):
        for name, one in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if hasattr(one, "label_logits") and not inspect.isabstract(one):
                found.add(name)
    # Backend is the protocol; PooledBackend runs others in processes and has its own tests (test_engines.py).
    assert found - {"Backend", "PooledBackend"} == set(OPENED)


@pytest.mark.parametrize("name", OPENED)
def test_capabilities_are_there_and_true(name: str, tiny_llama_dir: Path, tmp_path: Path) -> None:
    backend: Any = OPENED[name](tiny_llama_dir, tmp_path)
    assert type(backend).__name__ == name
    assert isinstance(backend, Backend)
    found = backend.capabilities
    assert isinstance(found, Capabilities)
    for field, wanted in get_type_hints(Capabilities).items():
        assert isinstance(getattr(found, field), wanted), field
    assert type(backend.prefix_hits) is int
    assert min(found.passes, found.batch_tokens) >= 1
    for method in ("last_logits", "last_hidden"):
        assert found.answers == hasattr(backend, method)
    assert found.holds_model == hasattr(getattr(backend, "model", None), "save_pretrained")
    if found.folder is not None:
        largest = max(file.stat().st_size for file in found.folder.iterdir())
        assert found.weights_bytes >= largest
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.passes = 3


@pytest.mark.parametrize("name", OPENED)
def test_who_has_layers_can_stop_between_them_and_nobody_else(name: str, tiny_llama_dir: Path, tmp_path: Path) -> None:
    backend = OPENED[name](tiny_llama_dir, tmp_path)
    cascade = Cascade((1,), np.zeros((1, 2 * WIDTHS.get(name, 1)), np.float32), 10)
    assert bool(backend.capabilities.layers) == (name in WIDTHS)
    if backend.capabilities.layers:
        assert early_exits(backend, cascade).passes == backend.capabilities.passes
    else:
        with pytest.raises(ValueError, match=f"cascade: backend {backend.name} cannot stop half way"):
            early_exits(backend, cascade)


def test_who_holds_no_model_saves_none(fake_reranker: Reranker, tmp_path: Path) -> None:
    """The remote backend's ``model`` is only a name."""
    fake_reranker.backend = remote(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="remote-tiny holds no transformers model to save"):
        fake_reranker.save(tmp_path / "saved")
