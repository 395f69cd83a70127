"""Sizes of a decoder of Llama's layout, from ``config.json`` or from a GGUF file: what our own engine needs to know.

Llama, Mistral without a window, Qwen2 and Qwen3; all else is PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.model.built_in import BaseError

__all__ = ["Architecture", "UnsupportedError", "architecture_of_config", "architecture_of_gguf"]

_KINDS = ("llama", "mistral", "qwen2", "qwen3")
_GROUP = 64  # inputs of a layer that share a scale in the engine
_HEAD = 16  # what must divide a head's size


class UnsupportedError(BaseError):
    """A model that our own engine does not run, and PyTorch may."""


class Architecture(NamedTuple):
    """Sizes; names as in :mod:`prorank.backends.native`."""

    kind: str
    layers: int
    hidden: int
    heads: int
    key_heads: int
    size: int
    """Of a head."""
    inner: int
    """Width of the block's inner layer."""
    vocabulary: int
    positions: int | None
    """Most tokens of a prompt."""
    epsilon: float
    frequencies: npt.NDArray[np.float32]
    """Of the rotary positions, ``(size / 2,)``."""
    rotary_scale: float = 1.0

    def facts(self) -> dict[str, int | float]:
        """What the engine's file says of the model."""
        names = ("layers", "hidden", "heads", "key_heads", "size", "inner", "epsilon", "rotary_scale")
        return {name: getattr(self, name) for name in names}

    def config(self) -> dict[str, str | int | float | None]:
        """The sizes under the names of ``config.json``."""
        return {
            "model_type": self.kind,
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": self.size,
            "intermediate_size": self.inner,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "rms_norm_eps": self.epsilon,
        }


def architecture_of_config(
    config: Mapping[str, Any], frequencies: npt.NDArray[np.float32] | None = None
) -> Architecture:
    """The sizes in a transformers ``config.json``.

    Args:
        frequencies: of the rotary positions, where they are known better than by the settings.

    Raises:
        UnsupportedError: the architecture is another, or a size does not fit the engine; names what.
        BaseError: a size is missing.
    """
    kind = str(config.get("model_type"))
    layers = set(config.get("layer_types") or ["full_attention"])
    windows = bool(config.get("sliding_window")) and config.get("use_sliding_window", True)
    if kind not in _KINDS or config.get("hidden_act") != "silu" or layers != {"full_attention"} or windows:
        raise UnsupportedError(f"native takes Llama, Mistral, Qwen2 and Qwen3 without sliding windows, not {kind}")
    try:
        heads = int(config["num_attention_heads"])
        size = int(config.get("head_dim") or config["hidden_size"] // heads)
        return _checked(Architecture(
            kind=kind,
            layers=int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            heads=heads,
            key_heads=int(config.get("num_key_value_heads") or heads),
            size=size,
            inner=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            positions=config.get("max_position_embeddings"),
            epsilon=float(config["rms_norm_eps"]),
            frequencies=_frequencies(config, size) if frequencies is None else frequencies,
        ))  # fmt: skip
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise BaseError(f"config.json: {type(error).__name__}: {error}") from error


def architecture_of_gguf(metadata: Mapping[str, Any], names: frozenset[str]) -> Architecture:
    """The sizes in a GGUF file's metadata.

    Args:
        names: of its tensors.

    Raises:
        UnsupportedError: as :func:`architecture_of_config`.
        BaseError: a size is missing.
    """
    kind = str(metadata.get("general.architecture"))
    windows = metadata.get(f"{kind}.attention.sliding_window")
    if kind not in _KINDS or windows:
        raise UnsupportedError(f"native takes Llama, Mistral, Qwen2 and Qwen3 without sliding windows, not {kind}")
    stretched = metadata.get(f"{kind}.rope.scaling.type", "none") != "none"
    if stretched or "rope_freqs.weight" in names or f"{kind}.expert_count" in metadata:
        raise UnsupportedError(f"native knows no {kind} with stretched rotary positions or experts in GGUF")

    def fact(name: str) -> Any:
        return metadata[f"{kind}.{name}"]

    try:
        heads, hidden = int(fact("attention.head_count")), int(fact("embedding_length"))
        size = int(metadata.get(f"{kind}.attention.key_length") or hidden // heads)
        theta = float(metadata.get(f"{kind}.rope.freq_base") or 10_000.0)
        return _checked(Architecture(
            kind=kind,
            layers=int(fact("block_count")),
            hidden=hidden,
            heads=heads,
            key_heads=int(metadata.get(f"{kind}.attention.head_count_kv") or heads),
            size=size,
            inner=int(fact("feed_forward_length")),
            vocabulary=len(metadata["tokenizer.ggml.tokens"]),
            positions=int(fact("context_length")),
            epsilon=float(fact("attention.layer_norm_rms_epsilon")),
            frequencies=_plain_frequencies(theta, size),
        ))  # fmt: skip
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise BaseError(f"GGUF metadata: {type(error).__name__}: {error}") from error


def _checked(found: Architecture) -> Architecture:
    for name, size, by in (
        ("hidden_size", found.hidden, _GROUP),
        ("intermediate_size", found.inner, _GROUP),
        ("head_dim", found.size, _HEAD),
        ("width of all heads", found.size * found.heads, _GROUP),
    ):
        if size % by:
            raise UnsupportedError(f"native needs a {name} that {by} divides, not {size}")
    return found


def _frequencies(config: Mapping[str, Any], size: int) -> npt.NDArray[np.float32]:
    """As in transformers' ``ROPE_INIT_FUNCTIONS``: plain, ``linear`` and ``llama3``."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    plain = _plain_frequencies(theta, size)
    if kind == "default":
        return plain
    if kind == "linear":
        return (plain / np.float32(rope["factor"])).astype(np.float32)
    if kind != "llama3":
        raise UnsupportedError(f"native knows no rotary positions of type {kind!r}")
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    length = float(rope["original_max_position_embeddings"])
    waves = 2 * math.pi / plain
    smooth = (length / waves - low) / (high - low)
    between = (1 - smooth) * plain / factor + smooth * plain
    stretched = np.where(waves > length / low, plain / factor, np.where(waves < length / high, plain, between))
    return stretched.astype(np.float32)


def _plain_frequencies(theta: float, size: int) -> npt.NDArray[np.float32]:
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    found: npt.NDArray[np.float32] = (1.0 / np.power(np.float32(theta), exponents)).astype(np.float32)
    return found
