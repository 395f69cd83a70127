"""A checkpoint as int8 weights for our own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from prorank.model.architecture import Architecture, architecture_of_config
from prorank.model.int8 import write_int8
from prorank.model.weights import Array

__all__ = ["check_native", "write_native"]


def write_native(model: Any, folder: Path) -> Path:
    """Write ``native.safetensors``: see :data:`prorank.backends.native.engine.PARTS`.

    Args:
        model: float32, on the CPU: Llama, Mistral without a window, Qwen2 or Qwen3.

    Raises:
        ValueError: the architecture is another, or a size does not fit the engine.
    """
    return write_int8(_ModelWeights(model), folder)


def check_native(model: Any) -> None:
    """Whether the engine can run a model.

    Raises:
        ValueError: the architecture is another, or a size does not fit.
    """
    _architecture(model)


def _architecture(model: Any) -> Architecture:
    try:
        found = architecture_of_config(model.config.get_text_config().to_dict(), frequencies=np.zeros(0, np.float32))
    except ValueError as error:
        raise ValueError(f"export: {error}") from error
    rotary = model.base_model.rotary_emb
    if (kind := getattr(rotary, "rope_type", "default")) not in ("default", "linear", "llama3", "yarn"):
        raise ValueError(f"export: native knows no rotary positions of type {kind!r}")
    turns = {"frequencies": rotary.inv_freq.float().numpy(), "rotary_scale": float(rotary.attention_scaling)}
    return found._replace(**turns)


class _ModelWeights:
    """A loaded model's weights: :class:`prorank.model.weights.Weights`."""

    def __init__(self, model: Any) -> None:
        self.architecture = _architecture(model)
        self._tensors: dict[str, torch.Tensor] = model.state_dict()

    def shape(self, name: str) -> tuple[int, ...] | None:
        """A tensor's shape."""
        return tuple(self._tensors[name].shape) if name in self._tensors else None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Its rows."""
        rows: Array = self._tensors[name][start:stop].float().numpy()
        return rows
