"""The graph that is exported: tokens on top of given keys and values -> last states, and their keys and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from prorank.backends.attention import use_attention
from prorank.backends.graph import HEAD
from prorank.backends.last_layer import can_skip_unread, reading, skip_unread
from prorank.backends.torch import label_rows

__all__ = ["ScoringGraph", "head_size", "write_head"]

_GROUPED = "prorank_grouped"


class ScoringGraph(torch.nn.Module):
    """What is exported: tokens on top of given keys and values -> every row's last state, and the first row's keys and
    values.

    The output matrix is no part of it: label logits are as large as 40, where bfloat16 knows only every quarter. The
    backend multiplies the two rows of :func:`write_head` in float32. Everything is laid out for short lives: a layer's
    keys and values of all rows are gone after that layer.

    Args:
        model: a transformers causal LM of plain causal attention (Llama, Qwen2, Qwen3, Mistral without a window).

    Raises:
        ValueError: the model's attention is not plain (sliding windows, capped logits).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        capped = getattr(config, "final_logit_softcapping", None) or getattr(config, "attn_logit_softcapping", None)
        if kinds != {"full_attention"} or capped:
            raise ValueError(
                f"export: {config.model_type} attends by {', '.join(sorted(kinds))}"
                f"{' with capped logits' if capped else ''}; this format takes plain causal attention only"
            )
        use_attention(model, _GROUPED, _grouped_attention)
        self.decoder = model.base_model
        if can_skip_unread(self.decoder):
            skip_unread(self.decoder)
        self.layers, self.heads = config.num_hidden_layers, config.num_key_value_heads
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.size = head_size(config)

    def example(self) -> dict[str, torch.Tensor]:
        """Inputs to trace with; no dimension that may change has length 1."""
        return {
            "ids": torch.tensor([[1, 2, 3], [3, 2, 1]]),
            "last": torch.tensor([2, 1]),
            "past": torch.zeros(2 * self.layers, 1, self.heads, 2, self.size),
            "hidden": torch.tensor([1]),
            "kept": torch.tensor([3]),
        }

    def forward(
        self, ids: torch.Tensor, last: torch.Tensor, past: torch.Tensor, hidden: torch.Tensor, kept: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One batch.

        Args:
            ids: ``(n, width)`` int64, padded on the right.
            last: ``(n,)`` int64, each row's last token.
            past: ``(2 layers, 1, heads, length, size)``: keys, then values, of what all rows share; length >= 1.
            hidden: ``(1,)`` int64: so many of the first positions of ``past`` do not exist (0 or 1).
            kept: ``(1,)`` int64: of so many first tokens keys and values are wanted, at least 1; all layers' are in
                memory until the end.

        Returns:
            States ``(n, hidden)`` after the last layer; keys and values ``(2 layers, 1, heads, kept, size)`` of the
            first row's tokens.
        """
        rows, width, before = ids.shape[0], ids.shape[1], past.shape[3]
        own = torch.arange(width, device=ids.device)
        keys = torch.arange(before + width, device=ids.device)
        seen = (keys[None, :] <= own[:, None] + before) & (keys[None, :] >= hidden)
        mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None].repeat(1, 1, self.group, 1)
        positions = (own + (before - hidden))[None]
        layers = [_SharedLayer(past[i], past[self.layers + i], rows, kept[0]) for i in range(self.layers)]
        cache = _cache_of(layers)
        with reading(last) as read:
            output = self.decoder(
                input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
            )
        states = output.last_hidden_state[read]
        present = torch.stack([one.own[i] for i in (0, 1) for one in layers])
        return states, present


def head_size(config: Any) -> int:
    """Width of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def write_head(model: Any, label_ids: tuple[int, int], folder: Path) -> Path:
    """Write ``labels.safetensors``: the output matrix's rows of the two labels, and their biases, in float32."""
    from safetensors.torch import save_file

    rows, bias = label_rows(model, label_ids)
    path = folder / HEAD
    save_file({"rows": rows.detach().clone(), "bias": bias.detach().clone()}, path)
    return path


def _grouped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' interface; query heads that share a key stand in one dimension, and no key is copied.

    Args:
        query: ``(n, heads, width, size)``.
        key: ``(n, key heads, length, size)``, as ``value``.
        attention_mask: ``(1, 1, heads / key heads * width, length)``, added.

    Returns:
        ``(n, width, heads, size)`` and None (no weights).
    """
    rows, _heads, width, size = query.shape
    together = query.reshape(rows, -1, module.num_key_value_groups * width, size)
    found = torch.nn.functional.scaled_dot_product_attention(
        together, key, value, attn_mask=attention_mask, scale=scaling
    )
    return found.reshape(rows, -1, width, size).transpose(1, 2), None


class _SharedLayer(DynamicLayer):
    """One layer's cache: a prefix of one row that all rows share, put before their own keys and values.

    Args:
        keys: ``(1, heads, length, size)``, as ``values``.
        rows: so many rows share them.
        kept: of so many first tokens the first row's own are kept.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: int, kept: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True
        self.dtype, self.device = keys.dtype, keys.device
        self.own: tuple[torch.Tensor, ...] = ()
        self._shared, self._rows, self._kept = (keys, values), rows, kept

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values to attend to; the first row's first own are kept."""
        self.own = (key_states[:1, :, : self._kept], value_states[:1, :, : self._kept])
        shared = (x.expand(self._rows, -1, -1, -1) for x in self._shared)
        keys, values = (torch.cat([a, b], dim=2) for a, b in zip(shared, (key_states, value_states), strict=True))
        return keys, values


def _cache_of(layers: list[_SharedLayer]) -> Any:
    """A cache that holds the layers as they are; the usual way in joins states to an empty tensor, which fails."""
    cache = DynamicCache()
    cache.layers.extend(layers)
    return cache
