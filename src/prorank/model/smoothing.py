"""Scales of channels that even out what int8 rounds, kept beside an adapter and applied when the int8 model is made.

They take forward passes to find (``tools/smoothing.py``, by :mod:`prorank.export.smoothing`) and numpy to apply: inputs
of a linear layer are divided by them where they come from, and the layer's columns multiplied. In exact arithmetic the
model stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank.backends.mapped import map_tensors
from prorank.model.architecture import Architecture
from prorank.model.built_in import BaseError
from prorank.model.weights import Array, Weights

__all__ = ["FILE", "PLACES", "Smoothed", "write_scales"]

FILE = "smoothing.safetensors"
PLACES = ("attention", "block", "values", "up")
"""``layers.3.values`` is float16, a scale a channel: of the two norms ``(hidden,)``, of the values ``(key heads *
size,)``, and of what the gate opens ``(inner,)``."""

_DIVIDED = {
    "input_layernorm": "attention",
    "post_attention_layernorm": "block",
    "self_attn.v_proj": "values",
    "mlp.up_proj": "up",
}
_MULTIPLIED = {
    "self_attn.q_proj": "attention",
    "self_attn.k_proj": "attention",
    "self_attn.v_proj": "attention",
    "self_attn.o_proj": "values",
    "mlp.gate_proj": "block",
    "mlp.up_proj": "block",
    "mlp.down_proj": "up",
}


def write_scales(folder: Path, scales: Mapping[str, npt.NDArray[Any]]) -> Path:
    """Write the file into a checkpoint's folder."""
    from safetensors.numpy import save_file

    save_file({name: scale.astype(np.float16) for name, scale in scales.items()}, folder / FILE)
    return folder / FILE


class Smoothed:
    """Weights with the scales of a file: :class:`prorank.model.weights.Weights`.

    Raises:
        BaseError: the file is damaged, or of another model.
    """

    def __init__(self, weights: Weights, file: Path) -> None:
        self._weights = weights
        sizes = weights.architecture
        self._shared = sizes.heads // sizes.key_heads
        self._size = sizes.size
        wanted = dict(zip(PLACES, (sizes.hidden, sizes.hidden, sizes.key_heads * sizes.size, sizes.inner), strict=True))
        try:
            self._scales = {name: scale.astype(np.float32) for name, scale in map_tensors(file)[0].items()}
        except (ValueError, OSError) as error:
            raise BaseError(f"{file}: {error}") from error
        for number in range(sizes.layers):
            for place, count in wanted.items():
                scale = self._scales.get(f"layers.{number}.{place}")
                if scale is None or scale.shape != (count,) or not (np.isfinite(scale) & (scale > 0)).all():
                    raise BaseError(f"{file}: layers.{number}.{place} is missing, of another size, or not positive")

    @property
    def architecture(self) -> Architecture:
        """See :class:`Weights`."""
        return self._weights.architecture

    def shape(self, name: str) -> tuple[int, ...] | None:
        """See :class:`Weights`."""
        return self._weights.shape(name)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """See :class:`Weights`."""
        found = self._weights.read(name, start, stop)
        number, _, rest = name.removeprefix("model.layers.").partition(".")
        part, _, kind = rest.rpartition(".")
        if part in _DIVIDED:
            scale = self._scales[f"layers.{number}.{_DIVIDED[part]}"][start:stop]
            found = found / scale.reshape(-1, *[1] * (found.ndim - 1))
        if part in _MULTIPLIED and kind == "weight":
            scale = self._scales[f"layers.{number}.{_MULTIPLIED[part]}"]
            if part == "self_attn.o_proj":  # each head of keys and values feeds several of the queries'
                scale = np.repeat(scale.reshape(-1, 1, self._size), self._shared, 1).reshape(-1)
            found = found * scale
        return found
