"""fastembed: what ``prorank export --to fastembed`` wrote, as one of its custom models.

from prorank.integrations.fastembed import open_model

encoder = open_model("runs/fastembed")
list(encoder.rerank("how do vaccines work", ["bread is baked", "vaccines train the immune system"]))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prorank._optional import require
from prorank.model.manifest import read_manifest

require("fastembed", extra="fastembed")
from fastembed.common.model_description import ModelSource  # noqa: E402
from fastembed.rerank.cross_encoder import TextCrossEncoder  # noqa: E402

__all__ = ["open_model", "register"]


def register(folder: str | os.PathLike[str], name: str | None = None) -> str:
    """Make a folder known to ``TextCrossEncoder``, which then takes its name and ``specific_model_path=folder``.

    Args:
        name: what fastembed calls it; default: ``prorank/`` and the folder's name. One that is known already stays.

    Returns:
        The name.

    Raises:
        ValueError: the folder is no export for fastembed.
    """
    path = Path(folder).expanduser()
    manifest = read_manifest(path) if path.is_dir() else None
    if manifest is None or manifest.backend != "fastembed":
        raise ValueError(f"{path} is not made for fastembed: prorank export --to fastembed --out {path}")
    name = name or f"prorank/{path.resolve().name}"
    if name.lower() not in (one["model"].lower() for one in TextCrossEncoder.list_supported_models()):
        TextCrossEncoder.add_custom_model(
            name, ModelSource(hf=name), model_file="model.onnx", description="A prorank reranker: scores are margins.",
            size_in_gb=round((path / "model.onnx").stat().st_size / 1e9, 2),
        )  # fmt: skip
    return name


def open_model(folder: str | os.PathLike[str], **options: Any) -> Any:
    """The folder as a ``TextCrossEncoder``; ``rerank`` gives margins.

    Args:
        options: of ``TextCrossEncoder``: ``threads``, ``providers``, ``cuda``, ``device_ids``, ``lazy_load``.

    Raises:
        ValueError: the folder is no export for fastembed.
    """
    return TextCrossEncoder(register(folder), specific_model_path=str(Path(folder).expanduser()), **options)
