"""Opens what ``prorank export`` wrote: a folder whose manifest names the backend that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prorank.model.checkpoint import Manifest
from prorank.scoring import Backend

__all__ = ["BACKENDS", "open_exported"]

BACKENDS = ("native", "openvino", "onnx", "llamacpp")
"""Backends of exported folders; ``torch`` runs everything else, ``remote:MODEL@URL`` asks a server."""


def open_exported(
    folder: Path, manifest: Manifest, *, threads: int | None = None, max_length: int | None = None
) -> Backend:
    """The backend that a folder was exported for; ``weights_bytes`` says how large its files are.

    Args:
        max_length: tokens of the longest prompt that it will get.

    Raises:
        ValueError: this version knows no such backend, or the files are damaged.
        ImportError: the backend's library is not installed; says what to install.
    """
    backend = _opened(folder, manifest, max_length, {"threads": threads})
    backend.weights_bytes = sum((folder / name).stat().st_size for name in manifest.files)
    opened: Backend = backend
    return opened


def _opened(folder: Path, manifest: Manifest, max_length: int | None, options: dict[str, Any]) -> Any:
    if manifest.backend == "native":
        from prorank.backends.native.engine import NativeBackend

        return NativeBackend(folder, manifest.label_ids, **options)
    if manifest.backend == "openvino":
        from prorank.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(
            folder, manifest.label_ids, precision=manifest.precision, max_length=max_length, **options
        )
    if manifest.backend == "onnx":
        from prorank.backends.onnx import OnnxBackend

        return OnnxBackend(folder, manifest.label_ids, precision=manifest.precision, **options)
    if manifest.backend == "llamacpp":
        from prorank.backends.llamacpp import LlamaCppBackend

        return LlamaCppBackend(folder / "model.gguf", manifest.label_ids, **options)
    raise ValueError(f"{folder}: backend {manifest.backend!r} is none of torch, {', '.join(BACKENDS)}")
