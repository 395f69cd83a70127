"""A checkpoint as int8 weights for our own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from prorank.backends.native.engine import FORMAT, GROUP, PARTS, WEIGHTS
from prorank.export.graph import head_size
from prorank.export.rounding import HIGH, LOW, spread, steps_of

__all__ = ["check_native", "write_native"]

_HALF = 32  # rows of the gate, and of what it opens, that stand together


def write_native(model: Any, folder: Path) -> Path:
    """Write ``native.safetensors``: see :data:`prorank.backends.native.engine.PARTS`.

    Args:
        model: float32, on the CPU: Llama, Mistral without a window, Qwen2 or Qwen3.

    Raises:
        ValueError: the architecture is another, or a size does not fit the engine.
    """
    from safetensors.torch import save_file

    check_native(model)
    config = model.config.get_text_config()
    decoder = model.base_model
    tensors: dict[str, torch.Tensor] = {}
    for i, block in enumerate(decoder.layers):
        attention, mlp = block.self_attn, block.mlp
        layers = {
            "qkv": _rows(torch.cat, attention.q_proj, attention.k_proj, attention.v_proj),
            "out": _rows(torch.cat, attention.o_proj),
            "gate_up": _rows(_alternating, mlp.gate_proj, mlp.up_proj),
            "down": _rows(torch.cat, mlp.down_proj),
        }
        for part in PARTS:
            weight, bias = layers[part]
            grid, step = _on_grid(spread(_to_panels(weight), GROUP))
            tensors |= {f"layers.{i}.{part}.weight": grid, f"layers.{i}.{part}.scale": step}
            if bias is not None:
                tensors[f"layers.{i}.{part}.bias"] = _to_panels(bias)
        norms = {"attention_norm": block.input_layernorm, "block_norm": block.post_attention_layernorm}
        norms |= {f"{kind}_norm": getattr(attention, f"{kind[0]}_norm", None) for kind in ("query", "key")}
        tensors |= {f"layers.{i}.{name}": norm.weight for name, norm in norms.items() if norm is not None}
    tensors["embeddings"] = decoder.embed_tokens.weight.half()
    tensors["norm"] = decoder.norm.weight
    tensors["frequencies"] = decoder.rotary_emb.inv_freq.float()
    facts = {
        "format": FORMAT,
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "key_heads": config.num_key_value_heads,
        "size": head_size(config),
        "inner": config.intermediate_size,
        "epsilon": config.rms_norm_eps,
        "rotary_scale": float(decoder.rotary_emb.attention_scaling),
    }
    path = folder / WEIGHTS
    contiguous = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={name: str(value) for name, value in facts.items()})
    return path


def check_native(model: Any) -> None:
    """Whether the engine can run a model.

    Raises:
        ValueError: the architecture is another, or a size does not fit.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    usual = config.model_type in ("llama", "mistral", "qwen2", "qwen3") and config.hidden_act == "silu"
    if not usual or kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        raise ValueError(
            f"export: native takes Llama, Mistral, Qwen2 and Qwen3 without sliding windows, not {config.model_type}"
        )
    rope = getattr(model.base_model.rotary_emb, "rope_type", "default")
    if rope not in ("default", "linear", "llama3", "yarn"):
        raise ValueError(f"export: native knows no rotary positions of type {rope!r}")
    for name, size, by in (
        ("hidden_size", config.hidden_size, GROUP),
        ("intermediate_size", config.intermediate_size, GROUP),
        ("head_dim", head_size(config), 16),
        ("width of all heads", head_size(config) * config.num_attention_heads, GROUP),
    ):
        if size % by:
            raise ValueError(f"export: native needs a {name} that {by} divides, not {size}")


def _rows(join: Any, *layers: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weights and biases of several layers as one."""
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return join([layer.weight for layer in layers]), join(biases) if biases else None


def _alternating(tensors: list[torch.Tensor]) -> torch.Tensor:
    """32 rows of the first, 32 of the second, and so on."""
    return torch.stack([t.unflatten(0, (-1, _HALF)) for t in tensors], dim=1).flatten(0, 2)


def _to_panels(tensor: torch.Tensor) -> torch.Tensor:
    """Zero rows are added until 64 divide their number."""
    missing = -len(tensor) % 64
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor


def _on_grid(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Int8 weights, and a step for every group of a row: its largest weight is -128 steps, as in
    :mod:`prorank.export.rounding`."""
    groups = weight.unflatten(1, (-1, GROUP))
    step = steps_of(groups.flatten(0, 1).T)[0].unflatten(0, groups.shape[:2])
    return (groups / step[:, :, None]).round().clamp(LOW, HIGH).to(torch.int8).flatten(1), step
