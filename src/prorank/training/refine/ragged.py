"""A query's prefix and documents of any length as one row: no padding between them, forward and backward.

The linear layers see one long row. Attention takes it apart: the prefix attends to itself, every document to the
prefix and to itself. Passages of a real list differ in length by half and more; padded to the longest, a third of all
rows were computed for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from prorank.backends.attention import can_block_attention, use_attention
from prorank.backends.torch import decoder_of
from prorank.types import EncodedGroup

__all__ = ["Layout", "ragged_hidden_states", "use_ragged_attention"]

_RAGGED = "prorank_ragged"
_SHORT = 256
"""Documents of up to so many tokens keep their attention weights for the backward pass on a CPU: PyTorch's fused kernel
computes them again there, at half the speed of plain products (90 tokens, forward and backward: 2.7 against 1.3 ms)."""


class Layout:
    """Where a row's prefix and documents stand, and what may see what.

    Args:
        prefix: tokens of the prefix.
        lengths: tokens of every document, in order.
    """

    def __init__(self, prefix: int, lengths: Sequence[int]) -> None:
        self.prefix, self.lengths = prefix, list(lengths)
        self._masks: dict[tuple[int, int, int | None, torch.device], torch.Tensor] = {}

    def mask(self, before: int, length: int, window: int | None, device: torch.device) -> torch.Tensor:
        """``(length, before + length)`` bool: tokens see what was before, at most ``window``; kept for all layers."""
        key = (before, length, window, device)
        if key not in self._masks:
            keys = torch.arange(before + length, device=device)
            behind = keys[before:, None] - keys[None]
            self._masks[key] = (behind >= 0) & (behind < (window or len(keys) + 1))
        return self._masks[key]


def use_ragged_attention(model: Any) -> bool:
    """Let a transformers model (PEFT's wrapper too) compute ragged rows; everything else goes on as before.

    Returns:
        False where the architecture attends by more than plain scaled products; nothing is changed then.
    """
    if model.config._attn_implementation == _RAGGED:
        return True
    if not can_block_attention(model):
        return False
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    use_attention(inner, _RAGGED, _ragged_attention)
    return True


def ragged_hidden_states(model: Any, group: EncodedGroup) -> torch.Tensor:
    """Hidden states after the last token of a group's documents, ``(n, hidden)``, by one pass.

    The model must have been through :func:`use_ragged_attention`.
    """
    prefix, own = list(group.prefix_ids), group.own_ids
    layout = Layout(len(prefix), [len(ids) for ids in own])
    tokens = torch.tensor([prefix + [token for ids in own for token in ids]], device=model.device)
    start = len(prefix)
    positions = torch.cat([torch.arange(start), *(torch.arange(start, start + len(ids)) for ids in own)])
    output = decoder_of(model)(
        input_ids=tokens,
        position_ids=positions.to(model.device)[None],
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=model.device),  # stands for no mask of its own
        use_cache=False,
        ragged=layout,
    )
    last = start - 1 + torch.tensor(layout.lengths).cumsum(0)
    states: torch.Tensor = output.last_hidden_state
    return states[0, last.to(model.device)]


def _ragged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    ragged: Layout | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: ``(1, heads, tokens, D)`` in, ``(1, tokens, heads, D)`` out."""
    if ragged is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    heads, tokens, size = query.shape[1:]
    key_heads = key.shape[1]
    # Heads that share a key stand in one dimension, over which the key is repeated without a copy.
    parts = [
        x[0].reshape(key_heads, -1, tokens, size).split([ragged.prefix, *ragged.lengths], dim=2)
        for x in (query, key, value)
    ]
    window: int | None = others.get("sliding_window")
    dropped = dropout if module.training else 0.0

    def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if q.device.type == "cpu" and q.shape[2] <= _SHORT and not dropped:
            factor = size**-0.5 if scaling is None else scaling
            # Under autocast rotation may have made float32 of what the products gave.
            product: torch.Tensor = _ShortAttention.apply(q.to(v.dtype), k[:, 0].to(v.dtype), v[:, 0], mask, factor)
            return product
        k, v = (x.expand(-1, heads // key_heads, -1, -1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropped, scale=scaling)

    (first, *queries), (first_key, *keys), (first_value, *values) = parts
    outputs = []
    if ragged.prefix:
        mask = ragged.mask(0, ragged.prefix, window, query.device)
        outputs.append(attended(first, first_key, first_value, mask))
    for q, k, v, length in zip(queries, keys, values, ragged.lengths, strict=True):
        mask = ragged.mask(ragged.prefix, length, window, query.device)
        outputs.append(attended(q, torch.cat([first_key, k], dim=2), torch.cat([first_value, v], dim=2), mask))
    output = torch.cat(outputs, dim=2).reshape(heads, tokens, size)
    return output.transpose(0, 1).contiguous()[None], None


class _ShortAttention(torch.autograd.Function):
    """softmax(factor q k' where mask) v with the weights kept, for heads that share keys.

    ``q`` is ``(key heads, group, Q, D)``, ``k`` and ``v`` ``(key heads, K, D)``, ``mask`` ``(Q, K)`` bool.
    """

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, factor: float
    ) -> torch.Tensor:
        shape = (*q.shape[:3], k.shape[1])
        rows = q.flatten(1, 2)
        scores = (rows @ k.transpose(1, 2)).view(shape).to(torch.promote_types(q.dtype, torch.float32))
        weights = (scores * factor).masked_fill_(~mask, -torch.inf).softmax(-1).to(q.dtype).flatten(1, 2)
        ctx.save_for_backward(rows, k, v, weights)
        ctx.factor, ctx.shape = factor, q.shape
        return (weights @ v).view(q.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, k, v, weights = ctx.saved_tensors
        gradient = gradients[0].flatten(1, 2)
        for_weights = gradient @ v.transpose(1, 2)
        mean = (for_weights * weights).sum(-1, keepdim=True, dtype=torch.promote_types(v.dtype, torch.float32))
        for_scores = ((for_weights - mean) * (weights * ctx.factor)).to(v.dtype)
        return (
            (for_scores @ k).view(ctx.shape),
            for_scores.transpose(1, 2) @ rows,
            weights.transpose(1, 2) @ gradient,
            None,
            None,
        )
