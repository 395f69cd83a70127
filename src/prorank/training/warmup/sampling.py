"""How tokens are drawn: the distribution that is sampled from, its seeded generator, and the draw itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F

from prorank.training.warmup.grpo import label_prior_offset

__all__ = ["behaviour", "draw", "generator_of", "taken_out"]


def behaviour(logits: torch.Tensor, temperature: float, labels: tuple[int, int], priors: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the first token as it is sampled: prior out, temperature in."""
    direction = label_prior_offset(logits.shape[1], labels, 1.0, device=logits.device)
    return F.log_softmax((logits + priors[:, None] * direction) / temperature, -1)


def taken_out(
    first: torch.Tensor, labels: tuple[int, int], priors: Callable[[torch.Tensor], torch.Tensor] | None
) -> torch.Tensor:
    margins = (first[:, labels[1]] - first[:, labels[0]]).detach()
    return torch.zeros_like(margins) if priors is None else priors(margins)


def draw(logprobs: torch.Tensor, count: int, generator: torch.Generator, top_p: float) -> list[tuple[int, int]]:
    """``count`` tokens as (token, how often) in ascending order of token."""
    probabilities = logprobs.float().cpu().exp()
    if top_p < 1:
        ordered, order = probabilities.sort(descending=True, stable=True)
        cut = ordered.cumsum(0) - ordered >= top_p
        probabilities[order[cut]] = 0
    drawn = torch.multinomial(probabilities, count, replacement=True, generator=generator)
    tokens, counts = drawn.unique(return_counts=True)
    return list(zip(tokens.tolist(), counts.tolist(), strict=True))


def generator_of(seed: str) -> torch.Generator:
    value = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(value)
