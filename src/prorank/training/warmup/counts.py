"""What is counted in a warmup step: sums, so that forward passes and processes add up."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from prorank.training.warmup.config import WarmupConfig
from prorank.training.warmup.learner import Advantage, Batch, Learner, entropy, margins_of, query_means
from prorank.training.warmup.rollout import Rollout

__all__ = ["COUNTS", "counted", "means", "vector"]

COUNTS = (
    "queries", "informative", "prompts", "zero_variance", "reward_format", "reward_relevance", "format_success",
    "accuracy", "entropy", "answers_one", "greedy_correct", "margin", "margin_gap", "kl", "clipped", "tokens",
)  # fmt: skip
"""Sums, to be divided by ``queries``, ``prompts`` or ``tokens``."""


def vector(values: Mapping[str, float | torch.Tensor]) -> torch.Tensor:
    """``(len(COUNTS),)`` float64; names that are no counts are left out, absent ones are 0."""
    return torch.as_tensor([float(values.get(name, 0.0)) for name in COUNTS], dtype=torch.float64)


@torch.no_grad()
def counted(
    learner: Learner, batch: Batch, rollout: Rollout, rewards: torch.Tensor, advantage: Advantage
) -> torch.Tensor:
    """The counts of one forward pass, before the loss; rewards are ``(m, k)``."""
    policy, labels, weights, query = learner.policy, batch.labels, batch.weights, batch.query
    share = rollout.counts / learner.config.group_size
    label_ids = torch.as_tensor(policy.label_ids, device=labels.device)
    greedy = rollout.first_logits.argmax(-1)
    margins = margins_of(policy, rollout)
    well_formed = [len(c) > 1 and c[0] in policy.label_ids and c[1] == policy.end_id for c in rollout.completions]
    formed = torch.as_tensor(well_formed, device=share.device, dtype=torch.float32)
    answer = torch.as_tensor([float(c[0] == policy.label_ids[1]) for c in rollout.completions], device=share.device)
    right = formed * (answer == labels[rollout.prompt])
    return vector(
        {
            "queries": float(len(advantage.live)), "informative": advantage.live.sum(), "prompts": float(len(labels)),
            "zero_variance": advantage.zero_variance.sum(), "format_success": (share * formed).sum(),
            "accuracy": (share * right).sum(), "entropy": entropy(rollout.first_logits).sum(),
            "answers_one": (greedy == label_ids[1]).sum(),
            "greedy_correct": (greedy == label_ids[labels]).float().mul(weights).sum(),
            "margin": query_means(margins, weights, query).sum(),
            "margin_gap": (query_means(margins * (2.0 * labels - 1), weights, query) * 2).sum(),
            **{f"reward_{r.name}": (share * rewards[:, i]).sum() for i, r in enumerate(learner.rewards)},
        }
    )  # fmt: skip


def means(counts: torch.Tensor, config: WarmupConfig) -> dict[str, float]:
    """A whole step's counts as what is logged: means a query, prompt or token, and how many of each there were."""
    values = dict(zip(COUNTS, counts.tolist(), strict=True))
    per_query, per_token, amounts = ("margin", "margin_gap"), ("kl", "clipped"), ("queries", "prompts", "informative")
    found = {
        name: value / max(values["queries" if name in per_query else "tokens" if name in per_token else "prompts"], 1)
        for name, value in values.items()
        if name not in (*amounts, "tokens")
    }
    if not config.beta:
        del found["kl"]  # the reference is not computed: see the evaluations
    found["reward"] = (
        config.format_weight * found["reward_format"] + config.relevance_weight * found["reward_relevance"]
    )
    return {**found, **{name: values[name] for name in amounts}}
