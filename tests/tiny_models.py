"""Tiny random checkpoints of several architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "mistral")


def make_tiny(
    folder: Path, architecture: str, tokenizer: Any, *, seed: int = 0, layers: int = 2, **other_sizes: Any
) -> Path:
    """Write a random checkpoint of an architecture; hidden size 32, the tokenizer's vocabulary.

    Args:
        other_sizes: of the configuration, in place of ours.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    names = {"gemma3": "gemma3_text"}
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.5,
    }
    if architecture in ("gemma3", "mistral"):
        sizes["sliding_window"] = 64
    sizes |= other_sizes
    config = CONFIG_MAPPING[names.get(architecture, architecture)](**sizes)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
