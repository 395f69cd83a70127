"""Causal attention in blocks of absolute positions (CPU): less work, and a result that does not depend on the batch.

The queries at positions 64 i to 64 i + 63 are multiplied with the keys before position 64 (i + 1) and no others.
That leaves out most of what a causal mask would throw away, and it makes the shapes that a query's row goes through
depend on nothing but its own position. The second matters in bfloat16: linear layers give the same bits for a row
whatever the number of rows, but the reduction over keys in PyTorch's fused attention follows the number of keys, and a
last bit that flips there grows over the layers to 0.15 in a margin (measured on SmolLM2-135M).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["BLOCKED", "blocked_attention", "can_block_attention", "use_attention", "use_blocked_attention"]

BLOCKED = "prorank_blocked"
_BLOCK = 64
_TILE = 32
"""PyTorch's kernel takes so many queries at a time; a row's last bit depends on how many its tile holds, so that tiles
begin at multiples of this position and are filled up with rows that nobody reads."""


def blocked_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention in transformers' interface.

    Args:
        query: ``(B, heads, Q, D)``; the Q last positions of the keys.
        key: ``(B, key heads, K, D)``, as ``value``.
        attention_mask: boolean ``(B or 1, 1, Q, K)``, lower triangular (no key stands after its query), such as the
            masks of sliding windows and of packed trees; or None for the plain causal one.

    Returns:
        ``(B, Q, heads, D)`` and None (no weights).
    """
    rows, heads, queries, _size = query.shape
    key_heads, keys = key.shape[1:3]
    more = -keys % _BLOCK
    before, after = (keys - queries) % _TILE, -keys % _TILE
    start, end = keys - queries - before, keys + after
    query = F.pad(query, (0, 0, before, after))
    # Heads that share a key stand in one dimension, over which the key is repeated without a copy.
    query = query.reshape(rows * key_heads, heads // key_heads, end - start, -1)
    key, value = (_shared_heads(F.pad(x, (0, 0, 0, more)), heads // key_heads) for x in (key, value))
    if attention_mask is not None:
        if attention_mask.shape[0] == 1 or attention_mask.stride(0) == 0:  # alike for all rows
            attention_mask = attention_mask[:1]
        else:
            attention_mask = attention_mask.repeat_interleave(key_heads, dim=0)
        attention_mask = F.pad(attention_mask, (0, 0, before, after), value=True)
    outputs = []
    for stop in range(start - start % _BLOCK + _BLOCK, keys + more + 1, _BLOCK):
        first, last = max(stop - _BLOCK, start), min(stop, end)
        at = slice(first - start, last - start)
        if attention_mask is None:
            positions = torch.arange(first, last, device=query.device)
            mask = torch.arange(stop, device=query.device)[None] <= positions[:, None]
        else:
            mask = F.pad(attention_mask[:, :, at, : min(stop, keys)], (0, max(stop - keys, 0)))
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, at],
                key[:, :, :stop],
                value[:, :, :stop],
                attn_mask=mask,
                dropout_p=dropout if module.training else 0.0,
                scale=scaling,
            )
        )
    output = torch.cat(outputs, dim=2)[:, :, before : before + queries].reshape(rows, heads, queries, -1)
    return output.transpose(1, 2).contiguous(), None


def _shared_heads(x: torch.Tensor, group: int) -> torch.Tensor:
    """``(B, key heads, K, D)`` -> ``(B * key heads, group, K, D)``, a view."""
    return x.reshape(-1, 1, *x.shape[2:]).expand(-1, group, -1, -1)


def can_block_attention(model: Any) -> bool:
    """Whether the model attends by plain scaled products (no capped attention logits, as in Gemma 2)."""
    config = model.config.get_text_config()
    return model.config._attn_implementation == "sdpa" and not getattr(config, "attn_logit_softcapping", None)


def use_blocked_attention(model: Any) -> None:
    """Make a loaded transformers model attend through :func:`blocked_attention`."""
    use_attention(model, BLOCKED, blocked_attention)


def use_attention(model: Any, name: str, attention: Callable[..., tuple[torch.Tensor, None]]) -> None:
    """Make a loaded transformers model attend through a function.

    Args:
        name: under which transformers knows it from now on.
        attention: as :func:`blocked_attention`; its masks are those of transformers' "sdpa".
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, sdpa_mask)
    model.set_attn_implementation(name)
