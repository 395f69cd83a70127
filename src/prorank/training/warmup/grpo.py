"""GRPO as pure functions: advantages, clipped ratio, KL to a reference, three ways to average. No model, no prompt.

Completions are given *weighted*: ``counts[i]`` says how many of a prompt's G samples were completion i, so that
identical completions are computed once. With every count 1 these are the formulas as published; with counts they are
the same sums, reordered. Counts may be fractions (an exact expectation over a finite output set: G times probability).

Sources: GRPO, Shao et al. 2024 (DeepSeekMath), arXiv 2402.03300, equations 3 and 4; DAPO, Yu et al. 2025, arXiv
2503.14476, equations 8 and 10 (clip-higher, token-level mean); Dr. GRPO, Liu et al. 2025, arXiv 2503.20783 (no
division by the standard deviation, constant length); k3, Schulman 2020, "Approximating KL divergence"; rewards
normalised apart: GDPO, arXiv 2601.05242.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

__all__ = [
    "Advantages",
    "Loss",
    "LossType",
    "clipped_objective",
    "group_advantages",
    "k3_divergence",
    "label_prior_offset",
    "policy_loss",
]

LossType = Literal["grpo", "dapo", "dr_grpo"]


class Advantages(NamedTuple):
    """What :func:`group_advantages` returns."""

    values: torch.Tensor
    """``(m,)`` one advantage a completion."""
    zero_variance: torch.Tensor
    """``(n,)`` bool: prompts all of whose completions earned the same: no gradient comes from them."""
    mean: torch.Tensor
    """``(n, k)`` mean of each reward over a prompt's group."""
    std: torch.Tensor
    """``(n, k)`` standard deviation of each reward over a prompt's group."""


class Loss(NamedTuple):
    """A loss in two parts, so that parts of a batch can be added up exactly: loss = total / normaliser."""

    total: torch.Tensor
    """Scalar with gradient: the sum before averaging."""
    normaliser: torch.Tensor
    """Scalar without gradient: what the sum over the *whole* batch is divided by."""
    diagnostics: dict[str, torch.Tensor]
    """Detached sums over completions and tokens: ``kl``, ``clipped``, ``ratio``, each to be divided by ``tokens``."""

    @property
    def mean(self) -> torch.Tensor:
        """The loss of this part by itself."""
        return self.total / self.normaliser.clamp(min=1e-12)


def group_advantages(
    rewards: torch.Tensor,
    counts: torch.Tensor,
    prompt: torch.Tensor,
    prompts: int,
    *,
    weights: torch.Tensor | None = None,
    normalise: Literal["apart", "sum"] = "apart",
    scale: bool = True,
    unbiased: bool = True,
    epsilon: float = 1e-4,
) -> Advantages:
    """Group-relative advantages: a reward against the mean of its prompt's group.

    ``sum``: A = (r - mean(r)) / (std(r) + epsilon) with r = sum_k w_k r_k (GRPO, section 4.1.2).
    ``apart``: A = sum_k w_k (r_k - mean(r_k)) / (std(r_k) + epsilon): a reward that hardly varies keeps its say.
    Without ``scale`` nothing is divided (Dr. GRPO). A group without variance gets advantage 0, never noise.

    Args:
        rewards: ``(m, k)`` rewards of m completions by k functions.
        counts: ``(m,)`` how often each was sampled; a prompt's counts add up to G.
        prompt: ``(m,)`` int64, which prompt each completion belongs to, 0 to ``prompts - 1``.
        weights: ``(k,)``; default ones.
        unbiased: divide the squares by G - 1 instead of G, as `torch.std` and TRL do.
    """
    weights = torch.ones(rewards.shape[1], dtype=rewards.dtype) if weights is None else weights
    weights = weights.to(rewards)
    values = rewards if normalise == "apart" else (rewards * weights).sum(1, keepdim=True)
    mean, std = _moments(values, counts, prompt, prompts, unbiased)
    centred = values - mean[prompt]
    flat = std[prompt] <= 1e-6  # rounding of equal rewards
    centred = torch.where(flat, torch.zeros_like(centred), centred)
    if scale:
        centred = centred / (std[prompt] + epsilon)
    advantages = (centred * weights).sum(1) if normalise == "apart" else centred[:, 0]
    counted = weights != 0 if normalise == "apart" else torch.ones(1, dtype=torch.bool, device=std.device)
    zero = (std[:, counted] <= 1e-6).all(1)
    if normalise == "sum":
        mean, std = _moments(rewards, counts, prompt, prompts, unbiased)
    return Advantages(advantages, zero, mean, std)


def clipped_objective(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = exp(logprobs - old), and where the clip was active.

    Args:
        logprobs: ``(m, t)`` log-probabilities of the completions' tokens now.
        old_logprobs: ``(m, t)`` the same when they were sampled.
        advantages: ``(m,)``.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    gain = ratio * advantages[:, None]
    limited = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages[:, None]
    return -torch.minimum(gain, limited), (limited < gain).detach()


def k3_divergence(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """k3 estimate of KL(policy || reference) a token: exp(d) - d - 1 with d = reference - logprobs; never negative."""
    difference = reference - logprobs
    return torch.exp(difference) - difference - 1


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    counts: torch.Tensor,
    *,
    reference: torch.Tensor | None = None,
    beta: float = 0.0,
    loss_type: LossType = "grpo",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    max_completion_tokens: int = 2,
) -> Loss:
    """The loss over m weighted completions of up to t tokens.

    Per token: l = -min(r A, clip(r) A) + beta k3. Then, with c = counts:
    ``grpo``: sum_i c_i mean_t(l_it) / sum_i c_i; ``dapo``: sum_i c_i sum_t l_it / sum_i c_i |o_i|;
    ``dr_grpo``: sum_i c_i sum_t l_it / (max_completion_tokens sum_i c_i).

    Args:
        logprobs: ``(m, t)``; at the first update the very tensor that sampled, so that r = 1 exactly.
        old_logprobs: ``(m, t)``; no gradient is taken of it.
        mask: ``(m, t)`` 1 for a token that was sampled, 0 for padding.
        counts: ``(m,)`` weights of the completions.
        reference: ``(m, t)`` log-probabilities of the reference policy; needed where ``beta`` is not 0.
    """
    if loss_type not in ("grpo", "dapo", "dr_grpo"):
        raise ValueError(f"loss_type must be grpo, dapo or dr_grpo, got {loss_type!r}")
    mask = mask.to(logprobs.dtype)
    per_token, clipped = clipped_objective(logprobs, old_logprobs.detach(), advantages, clip_low, clip_high)
    divergence = torch.zeros_like(logprobs)
    if reference is not None:
        divergence = k3_divergence(logprobs, reference.detach())
    if beta:
        if reference is None:
            raise ValueError("beta is not 0, so the log-probabilities of the reference policy are needed")
        per_token = per_token + beta * divergence
    per_token = torch.where(mask > 0, per_token, torch.zeros_like(per_token))
    lengths = mask.sum(1)
    if loss_type == "grpo":
        total = (counts * per_token.sum(1) / lengths.clamp(min=1)).sum()
        normaliser = counts.sum()
    else:
        total = (counts * per_token.sum(1)).sum()
        normaliser = (counts * lengths).sum() if loss_type == "dapo" else counts.sum() * max_completion_tokens
    weight = counts[:, None] * mask
    diagnostics = {
        "kl": (divergence.detach() * weight).sum(),
        "clipped": (clipped * weight).sum(),
        "ratio": (torch.exp(logprobs - old_logprobs).detach() * weight).sum(),
        "tokens": weight.sum(),
    }
    return Loss(total, normaliser.detach(), diagnostics)


def label_prior_offset(
    vocabulary: int, label_ids: tuple[int, int], prior: float, *, device: torch.device | None = None
) -> torch.Tensor:
    """``(vocabulary,)`` to be added to the logits that are sampled from: takes a margin ``prior`` away, half a label.

    A bias towards one answer shared by all prompts earns nothing and is lost by nothing, and it starves both answers
    of variance; sampling around it keeps both answers in play. Ours.
    """
    offset = torch.zeros(vocabulary, device=device)
    offset[label_ids[0]] = prior / 2
    offset[label_ids[1]] = -prior / 2
    return offset


def _moments(
    values: torch.Tensor, counts: torch.Tensor, prompt: torch.Tensor, prompts: int, unbiased: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean and standard deviation of each column a prompt: ``(m, k)`` -> two ``(prompts, k)``."""
    shape = (prompts, values.shape[1])
    weight = counts.to(values)[:, None]
    size = values.new_zeros(prompts, 1).index_add_(0, prompt, weight)
    mean = values.new_zeros(shape).index_add_(0, prompt, values * weight) / size.clamp(min=1e-12)
    squares = values.new_zeros(shape).index_add_(0, prompt, (values - mean[prompt]) ** 2 * weight)
    std = torch.sqrt(squares / (size - 1 if unbiased else size).clamp(min=1e-12))
    return mean, torch.where(size > 1, std, torch.zeros_like(std)) if unbiased else std
