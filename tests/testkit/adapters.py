"""A checkpoint of the kind that training writes: a random LoRA on a tiny base, and a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prorank.model.base import load_base
from prorank.model.checkpoint import save_checkpoint
from prorank.model.manifest import Manifest
from prorank.prompt.presets import PRESETS

__all__ = ["SIZES", "with_adapter"]

SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "initializer_range": 0.1}
"""Of a base that our own engine takes."""


def with_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """Write the checkpoint; ``settings`` are LoraConfig's."""
    import torch
    from peft import LoraConfig, get_peft_model

    loaded = load_base(str(base))
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8.0, target_modules=["q_proj", "v_proj", "down_proj", "up_proj"], **settings)
    model = get_peft_model(loaded.model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = tuple(loaded.tokenizer.convert_tokens_to_ids(word) for word in ("0", "1"))
    manifest = Manifest(PRESETS["prorank"], ids, max_length=256, base_name=str(base), base_sha256=loaded.sha256)  # type: ignore[arg-type]
    return save_checkpoint(folder, model, loaded.tokenizer, manifest)
