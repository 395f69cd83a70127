"""Opens what ``prorank export`` wrote: a folder whose manifest names the backend that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prorank.model.checkpoint import Manifest
from prorank.model.first_opening import how_cautiously
from prorank.scoring import Backend

__all__ = ["BACKENDS", "open_exported", "opened"]

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
        ImportError: the backend's library is not installed (says what to install), or crashes on this processor.
    """
    caution = how_cautiously(folder, manifest, threads=threads, max_length=max_length)
    backend = opened(folder, manifest, max_length, threads=threads, caution=caution)
    backend.weights_bytes = sum((folder / name).stat().st_size for name in manifest.files)
    found: Backend = backend
    return found


def opened(folder: Path, manifest: Manifest, max_length: int | None, *, caution: int = 0, **options: Any) -> Any:
    """The backend of a folder, in this process, which a crash of the engine ends.

    Args:
        caution: 0: as fast as it can; see :func:`prorank.model.first_opening.how_cautiously`.
    """
    if manifest.backend == "native":
        from prorank.backends.native.engine import NativeBackend

        return NativeBackend(folder, manifest.label_ids, **options)
    if manifest.backend == "openvino":
        from prorank.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(
            folder, manifest.label_ids, precision=manifest.precision, max_length=max_length, caution=caution, **options
        )
    if manifest.backend == "onnx":
        from prorank.backends.onnx import OnnxBackend

        return OnnxBackend(folder, manifest.label_ids, precision=manifest.precision, **options)
    if manifest.backend == "llamacpp":
        from prorank.backends.llamacpp import LlamaCppBackend

        return LlamaCppBackend(folder / "model.gguf", manifest.label_ids, **options)
    raise ValueError(f"{folder}: backend {manifest.backend!r} is none of torch, {', '.join(BACKENDS)}")
