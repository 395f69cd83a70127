"""Opens what ``prorank export`` wrote: a folder whose manifest names the backend that runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prorank.model.engines import opened
from prorank.model.first_opening import how_cautiously
from prorank.model.manifest import Manifest
from prorank.scoring import Backend

__all__ = ["open_exported"]


def open_exported(
    folder: Path, manifest: Manifest, *, threads: int | None = None, max_length: int | None = None
) -> Backend:
    """The backend that a folder was exported for; its capabilities name the folder and the size of its weights.

    Args:
        max_length: tokens of the longest prompt that it will get.

    Raises:
        ValueError: this version knows no such backend, or the files are damaged.
        ImportError: the backend's library is not installed (says what to install), or crashes on this processor.
    """
    caution = how_cautiously(folder, manifest, threads=threads, max_length=max_length)
    backend: Backend = opened(folder, manifest, max_length, threads=threads, caution=caution)
    size = sum((folder / name).stat().st_size for name in manifest.files)
    backend.capabilities = replace(backend.capabilities, weights_bytes=size, folder=folder)
    return backend
