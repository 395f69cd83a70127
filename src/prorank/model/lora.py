"""Plain LoRA on linear layers, which is what prorank trains, read without peft: W + scale * B A."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.backends.mapped import map_tensors
from prorank.model.architecture import Architecture
from prorank.model.built_in import BaseError
from prorank.model.weights import Weights

__all__ = ["Merged", "Pair", "is_plain", "plain_pairs"]

Array = npt.NDArray[np.float32]

_PREFIX = "base_model.model."
_HARMLESS = {  # settings that do not change what a finished plain adapter adds to the weights
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
}


class Pair(NamedTuple):
    """What an adapter adds to one layer's weight: ``scale * b @ a``."""

    a: Array
    """``(rank, in)``."""
    b: Array
    """``(out, rank)``."""
    scale: float


def plain_pairs(adapter: Path) -> dict[str, Pair] | None:
    """An adapter's pairs by the name of the layer, or None where it is more than plain LoRA.

    Raises:
        BaseError: the folder holds no safetensors, or a file is damaged.
    """
    if not list(adapter.glob("*.safetensors")):
        raise BaseError(f"adapter {adapter}: no safetensors file (a pickled .bin is not read)")
    try:
        config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(f"adapter {adapter}: adapter_config.json: {error}") from error
    file = adapter / "adapter_model.safetensors"
    if not is_plain(config) or not file.is_file():
        return None
    try:
        tensors = map_tensors(file)[0]
        rank = float(config["r"])
        scale = float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise BaseError(f"adapter {adapter}: {error}") from error
    pairs = {}
    for key, a in tensors.items():
        name, is_a, _ = key.partition(".lora_A.weight")
        if not is_a:
            if key.replace(".lora_B.", ".lora_A.") not in tensors or ".lora_B.weight" not in key:
                return None
            continue
        b = tensors.get(f"{name}.lora_B.weight")
        if b is None or not name.startswith(_PREFIX):
            return None
        pairs[name.removeprefix(_PREFIX)] = Pair(_float32(a), _float32(b), scale)
    return pairs or None


def is_plain(config: dict[str, Any]) -> bool:
    """Whether no setting is on that we do not know."""
    ours = config.get("peft_type") == "LORA" and config.get("bias") == "none"
    start = config.get("init_lora_weights", True) in (True, False)  # others may change the base's weights, too
    known = {*_HARMLESS, "bias", "init_lora_weights"}
    return ours and start and not any(value for name, value in config.items() if name not in known)


def _float32(values: npt.NDArray[Any]) -> Array:
    if values.dtype == np.uint16:  # bfloat16
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


class Merged:
    """Weights with adapters on top: :class:`prorank.model.weights.Weights`.

    Args:
        adapters: of :func:`plain_pairs`, in the order in which they are added.
        where: the adapters' names, for messages.

    Raises:
        BaseError: an adapter is for a layer that the base does not have, or of another size.
    """

    def __init__(self, base: Weights, adapters: Sequence[dict[str, Pair]], where: Sequence[Path]) -> None:
        self._base, self._adapters = base, adapters
        for pairs, folder in zip(adapters, where, strict=True):
            for name, pair in pairs.items():
                weight = f"{name}.weight"
                if base.shape(weight) != (pair.b.shape[0], pair.a.shape[1]):
                    raise BaseError(f"adapter {folder} does not fit the base: {weight} is missing or of another size")

    @property
    def architecture(self) -> Architecture:
        """See :class:`Weights`."""
        return self._base.architecture

    def shape(self, name: str) -> tuple[int, ...] | None:
        """See :class:`Weights`."""
        return self._base.shape(name)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """See :class:`Weights`."""
        found = self._base.read(name, start, stop)
        for pairs in self._adapters:
            pair = pairs.get(name.removesuffix(".weight"))
            if pair is not None and name.endswith(".weight"):
                found = (pair.b[start:stop] @ pair.a) * np.float32(pair.scale) + found
        return found
