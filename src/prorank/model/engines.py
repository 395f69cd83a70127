"""The engines that run exported folders, by the name in the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prorank.model.manifest import Manifest

__all__ = ["BACKENDS", "opened"]

BACKENDS = ("native", "openvino", "onnx", "llamacpp", "seq-cls")
"""Backends of exported folders; ``torch`` runs everything else, ``remote:MODEL@URL`` asks a server."""


def opened(folder: Path, manifest: Manifest, max_length: int | None, *, caution: int = 0, **options: Any) -> Any:
    """The backend of a folder, in this process, which a crash of the engine ends.

    Args:
        caution: 0: as fast as it can; see ``first_opening``.
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
    if manifest.backend == "fastembed":
        raise ValueError(f"{folder} is made for fastembed: open it with prorank.integrations.fastembed.open_model")
    if manifest.backend == "seq-cls":
        from prorank.backends.seq_cls import SeqClsBackend

        return SeqClsBackend(folder, **options)
    raise ValueError(f"{folder}: backend {manifest.backend!r} is none of torch, {', '.join(BACKENDS)}")
