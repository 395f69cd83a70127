"""Merge a LoRA adapter into its base.

Plain LoRA on linear layers, which is what prorank trains, is merged here: it is a few lines, and saves the import of
peft, the largest part of a start. Everything else peft merges.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prorank.model.base import BaseError
from prorank.model.lora import Pair, plain_pairs

__all__ = ["merge_adapter"]


def merge_adapter(model: Any, adapter: Path, dtype: Any = None) -> Any:
    """The model with the adapter's weights added to its own.

    Args:
        model: a transformers model in float32; changed in place.
        adapter: a peft folder.
        dtype: what the result may end in, rounded once, after the sum; default: float32.

    Raises:
        BaseError: the folder holds no safetensors, or does not fit the model.
    """
    pairs = plain_pairs(adapter)
    try:
        if pairs is not None and _merge_plain(model, pairs, dtype):
            return model
        from peft import PeftModel

        return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().eval()
    except Exception as error:  # peft, safetensors and torch each raise their own kind
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise BaseError(f"adapter {adapter} does not fit the base: {type(error).__name__}: {first}") from error


def _merge_plain(model: Any, pairs: Mapping[str, Pair], dtype: Any) -> bool:
    """Add all pairs, or nothing where one does not belong to a linear layer: then False."""
    import torch

    layers = []
    for name, pair in pairs.items():
        try:
            module = model.get_submodule(name)
        except AttributeError:
            return False
        if not isinstance(module, torch.nn.Linear) or module.weight.shape != (pair.b.shape[0], pair.a.shape[1]):
            return False
        layers.append((module.weight, pair))
    with torch.no_grad():
        for weight, pair in layers:
            # A new tensor: the loaded one is a mapped file, whose pages would first be copied to be written to.
            added = torch.from_numpy(pair.b) @ torch.from_numpy(pair.a)
            weight.data = added.mul_(pair.scale).add_(weight).to(dtype or weight.dtype)
    return True
