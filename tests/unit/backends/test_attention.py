"""Attention in blocks against PyTorch's own over the whole mask, and row by row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from prorank.backends.attention import blocked_attention


def tensors(queries: int, keys: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Three rows, six heads over two key heads."""
    random = torch.Generator().manual_seed(0)
    sizes = ((3, 6, queries, 16), (3, 2, keys, 16), (3, 2, keys, 16))
    return tuple(torch.randn(*size, generator=random).to(dtype) for size in sizes)


@pytest.mark.parametrize("mask", ["none", "causal", "window", "own for each row"])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (300, 300), (300, 366), (1, 130), (128, 128), (130, 256)])
def test_equals_attention_over_the_whole_mask(queries: int, keys: int, mask: str) -> None:
    query, key, value = tensors(queries, keys)
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    if mask == "window":
        seen = seen & torch.ones_like(seen).triu(keys - queries - 40)
    whole = seen[None, None].expand(3, 1, -1, -1)
    if mask == "own for each row":
        random = torch.rand(3, 1, queries, keys, generator=torch.Generator().manual_seed(1))
        whole = (whole & (random > 0.3)) | torch.eye(keys, dtype=torch.bool)[keys - queries :][None, None]
    got, _ = blocked_attention(torch.nn.Module().eval(), query, key, value, None if mask == "none" else whole)
    wanted = F.scaled_dot_product_attention(
        query, key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), attn_mask=whole
    )
    torch.testing.assert_close(got, wanted.transpose(1, 2), atol=1e-5, rtol=0)


def test_bits_do_not_depend_on_company() -> None:
    """A row alone, shorter rows beside it, a shared beginning left out: the very same numbers, in bfloat16."""
    query, key, value = tensors(300, 300, torch.bfloat16)
    module = torch.nn.Module().eval()
    whole, _ = blocked_attention(module, query, key, value, None)
    alone, _ = blocked_attention(module, query[:1], key[:1], value[:1], None)
    assert torch.equal(alone, whole[:1])
    shorter, _ = blocked_attention(module, query[:, :, :201], key[:, :, :201], value[:, :, :201], None)
    assert torch.equal(shorter, whole[:, :201])
    after_a_prefix, _ = blocked_attention(module, query[:, :, 66:], key, value, None)
    assert torch.equal(after_a_prefix, whole[:, 66:])
