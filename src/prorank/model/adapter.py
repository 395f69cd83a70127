"""Merge a LoRA adapter into its base.

Plain LoRA on linear layers, which is what prorank trains, is merged here: W + scale * B A. It is a few lines, and saves
the import of peft, the largest part of a start. Everything else peft merges.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prorank.model.base import BaseError

__all__ = ["is_plain", "merge_adapter"]

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


def merge_adapter(model: Any, adapter: Path, dtype: Any = None) -> Any:
    """The model with the adapter's weights added to its own.

    Args:
        model: a transformers model in float32; changed in place.
        adapter: a peft folder.
        dtype: what the result may end in, rounded once, after the sum; default: float32.

    Raises:
        BaseError: the folder holds no safetensors, or does not fit the model.
    """
    if not list(adapter.glob("*.safetensors")):
        raise BaseError(f"adapter {adapter}: no safetensors file (a pickled .bin is not read)")
    try:
        config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
        if is_plain(config) and _merge_plain(model, adapter / "adapter_model.safetensors", config, dtype):
            return model
        from peft import PeftModel

        return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().eval()
    except Exception as error:  # peft, safetensors and torch each raise their own kind
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise BaseError(f"adapter {adapter} does not fit the base: {type(error).__name__}: {first}") from error


def is_plain(config: dict[str, Any]) -> bool:
    """Whether no setting is on that we do not know."""
    ours = config.get("peft_type") == "LORA" and config.get("bias") == "none"
    start = config.get("init_lora_weights", True) in (True, False)  # others may change the base's weights, too
    known = {*_HARMLESS, "bias", "init_lora_weights"}
    return ours and start and not any(value for name, value in config.items() if name not in known)


def _merge_plain(model: Any, file: Path, config: dict[str, Any], dtype: Any) -> bool:
    """Add all pairs, or nothing where a tensor is of another kind: then False."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(file)
    pairs = []
    for key, a in tensors.items():
        name, is_a, _ = key.partition(".lora_A.weight")
        if not is_a:
            if key.replace(".lora_B.", ".lora_A.") not in tensors or ".lora_B.weight" not in key:
                return False
            continue
        b = tensors.get(f"{name}.lora_B.weight")
        try:
            module = model.get_submodule(name.removeprefix(_PREFIX))
        except AttributeError:
            return False
        if b is None or not name.startswith(_PREFIX) or not isinstance(module, torch.nn.Linear):
            return False
        if module.weight.shape != (b.shape[0], a.shape[1]):
            return False
        pairs.append((module.weight, a, b))
    rank = float(config["r"])
    scale = float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
    with torch.no_grad():
        for weight, a, b in pairs:
            # A new tensor: the loaded one is a mapped file, whose pages would first be copied to be written to.
            weight.data = (b.float() @ a.float()).mul_(scale).add_(weight).to(dtype or weight.dtype)
    return bool(pairs)
