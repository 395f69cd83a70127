"""Attention whose result for a row does not depend on the batch it is in (CPU, bfloat16).

The matrix products of linear layers give the same bits for a row whatever the number of rows. PyTorch's fused CPU
attention does not: its inner blocking follows the numbers of queries and keys, and in bfloat16 the last bit that flips
there grows over the layers to 0.15 in a margin (measured on SmolLM2-135M). Here queries are padded to whole blocks of
32 and keys to whole blocks of 512, the kernel's own, with masked zeros: the blocking is then always the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["BLOCKED", "blocked_attention", "can_block_attention", "use_blocked_attention"]

BLOCKED = "prorank_blocked"
_QUERY_BLOCK, _KEY_BLOCK = 32, 512


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
        attention_mask: boolean ``(B or 1, 1, Q, K)``, alike for all rows (padding is on the right and needs none),
            or None for the plain causal one.

    Returns:
        ``(B, Q, heads, D)`` and None (no weights).
    """
    queries, keys = query.shape[2], key.shape[2]
    more_queries, more_keys = -queries % _QUERY_BLOCK, -keys % _KEY_BLOCK
    if attention_mask is None:
        rows = torch.arange(keys - queries, keys + more_queries, device=query.device)
        mask = (torch.arange(keys + more_keys, device=query.device)[None] <= rows[:, None])[None, None]
    else:
        mask = F.pad(attention_mask[:1, :, :, :keys], (0, more_keys, 0, more_queries))
        mask[:, :, queries:, 0] = True  # padded queries see something, so that no row is empty
    groups = query.shape[1] // key.shape[1]
    output = F.scaled_dot_product_attention(
        F.pad(query, (0, 0, 0, more_queries)),
        F.pad(key, (0, 0, 0, more_keys)).repeat_interleave(groups, dim=1),
        F.pad(value, (0, 0, 0, more_keys)).repeat_interleave(groups, dim=1),
        attn_mask=mask,
        dropout_p=dropout if module.training else 0.0,
        scale=scaling,
    )
    return output[:, :, :queries].transpose(1, 2).contiguous(), None


def can_block_attention(model: Any) -> bool:
    """Whether the model attends by plain scaled products (no capped attention logits, as in Gemma 2)."""
    config = model.config.get_text_config()
    return model.config._attn_implementation == "sdpa" and not getattr(config, "attn_logit_softcapping", None)


def use_blocked_attention(model: Any) -> None:
    """Make a loaded transformers model attend through :func:`blocked_attention`."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(BLOCKED, blocked_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(BLOCKED, sdpa_mask)
    model.set_attn_implementation(BLOCKED)
