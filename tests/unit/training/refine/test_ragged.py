"""Attention over a prefix and documents of different lengths in one row."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from prorank.training.refine.ragged import Layout, _ragged_attention, _ShortAttention


def test_kept_weights_give_the_gradients_of_finite_differences():
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in ((2, 3, 4, 5), (2, 7, 5), (2, 7, 5))
    )
    mask = Layout(3, [4]).mask(3, 4, None, q.device)
    assert torch.autograd.gradcheck(lambda *x: _ShortAttention.apply(*x, mask, 0.3), (q, k, v))


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("prefix", [0, 6])
def test_every_document_sees_the_prefix_and_itself(prefix, window):
    torch.manual_seed(1)
    lengths = [4, 9, 1]
    total = prefix + sum(lengths)
    query, key, value = (torch.randn(1, heads, total, 8) for heads in (6, 2, 2))
    module = SimpleNamespace(training=False)
    output, _ = _ragged_attention(
        module, query, key, value, None, ragged=Layout(prefix, lengths), sliding_window=window
    )
    assert output.shape == (1, total, 6, 8)
    start = prefix
    for length in lengths:
        at = [*range(prefix), *range(start, start + length)]
        behind = torch.arange(len(at))[:, None] - torch.arange(len(at))
        mask = (behind >= 0) & (behind < (window or total))
        k, v = (x[:, :, at].repeat_interleave(3, dim=1) for x in (key, value))
        wanted = F.scaled_dot_product_attention(query[:, :, at], k, v, attn_mask=mask).transpose(1, 2)
        assert torch.allclose(output[:, at], wanted, atol=1e-6)
        start += length
