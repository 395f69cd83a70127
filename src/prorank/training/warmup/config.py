"""Every setting of stage 1, its default and its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prorank.training.config import TrainingConfig

__all__ = ["WarmupConfig"]


@dataclass(frozen=True)
class WarmupConfig(TrainingConfig):
    """Stage 1, prompt warmup by GRPO. The paper's values were not available to us; all are ours (docs/warmup.md)."""

    negatives: int = 3
    """Negatives a query, random and hard together."""
    hard_negatives: int = 0
    """How many of them come from the first stage instead of the whole corpus, once hard_start is reached."""
    hard_start: float = 0.5
    """Share of the steps with random (easy) negatives only, before hard ones come in."""
    hard_rank_from: int = 3
    """First rank (from 1) of the first stage's list hard negatives are drawn from: the top holds unjudged positives."""
    hard_rank_to: int = 40
    """Last rank that hard negatives are drawn from."""
    relevance_threshold: int | None = None
    """Judgments of at least this are relevant; needed where judgments are graded above 1."""

    objective: Literal["grpo", "exact", "supervised"] = "grpo"
    """grpo samples; exact takes the gradient of the expected reward over the finite output set; supervised is
    cross-entropy on the label word and the end of the turn."""
    group_size: int = 64
    """Completions sampled for each prompt (G); identical ones are computed once, so that more cost nothing."""
    max_completion_tokens: int = 2
    """Longest completion: the label word and the end of the turn."""
    temperature: float = 1.0
    """Of sampling."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this probability."""
    format_weight: float = 1.0
    """Weight of the format reward (0: relevance alone)."""
    relevance_weight: float = 1.0
    """Weight of the relevance reward (0: format alone)."""
    extra_rewards: tuple[str, ...] = ()
    """Further rewards as package.module:function=weight."""
    normalise: Literal["apart", "sum"] = "apart"
    """Rewards normalised each by itself and then summed, or summed and then normalised."""
    scale_rewards: bool = True
    """Divide advantages by the group's standard deviation (not in dr_grpo)."""
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    """How token losses are averaged."""
    clip_low: float = 0.2
    """Lower end of the clip: 1 - clip_low."""
    clip_high: float = 0.2
    """Upper end of the clip: 1 + clip_high."""
    beta: float = 0.0
    """Weight of the KL divergence to the reference policy (the base); not 0 costs a further forward pass."""
    updates_per_rollout: int = 1
    """Optimiser steps on the same completions; 1 is on-policy and needs no second forward pass."""
    refill_rounds: int = 1
    """How often queries without any reward variance are replaced by fresh ones within a step."""
    balance: bool = True
    """Let the positives and the negatives of a query weigh the same."""
    prior: Literal["running", "query", "none"] = "running"
    """Which mean margin is taken out of the label logits before sampling: a running one, the query's own, none."""
    prior_decay: float = 0.5
    """Of the running mean, a step."""
    prior_end: float = 0.5
    """Share of the steps after which the correction has faded (linearly) to nothing."""
    margin_cost: float = 0.1
    """Weight of half the squared mean margin of a query's prompts, positives and negatives weighing the same."""
    entropy_bonus: float = 0.0
    """Weight of the entropy of the first token."""

    queries_per_forward: int = 1
    """Queries computed at once; the rest of a step accumulates. The result does not depend on it."""
    collapse_steps: int = 20
    """Report collapse when all greedy answers of so many steps in a row were the same."""
    on_collapse: Literal["report", "stop"] = "report"
    """What to do then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one(
            "negatives",
            "max_completion_tokens",
            "updates_per_rollout",
            "hard_rank_from",
            "collapse_steps",
            "queries_per_forward",
        )
        self._shares("hard_start", "prior_end")
        self._not_negative("beta", "margin_cost", "refill_rounds", "hard_negatives")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected more than 0, got {self.temperature}")
        if self.group_size < 2:
            raise ValueError(f"group_size: expected at least 2 completions to compare, got {self.group_size}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected more than 0 and at most 1, got {self.top_p}")
        if self.hard_negatives > self.negatives:
            raise ValueError(
                f"hard_negatives: expected at most negatives ({self.negatives}), got {self.hard_negatives}"
            )
        if self.hard_rank_to < self.hard_rank_from:
            raise ValueError(f"hard_rank_to: expected at least hard_rank_from, got {self.hard_rank_to}")
        if self.objective != "grpo" and self.updates_per_rollout > 1:
            raise ValueError(f"updates_per_rollout: expected 1 with objective {self.objective}")
        if self.objective != "grpo" and self.max_completion_tokens != 2:
            raise ValueError(f"max_completion_tokens: expected 2 with objective {self.objective}")

    def reward_weights(self) -> list[tuple[str, float]]:
        """(name or import path, weight) of every reward."""
        pairs = [("format", self.format_weight), ("relevance", self.relevance_weight)]
        for text in self.extra_rewards:
            path, _, weight = text.partition("=")
            try:
                pairs.append((path, float(weight or 1.0)))
            except ValueError:
                raise ValueError(f"extra_rewards: expected package.module:function=weight, got {text!r}") from None
        return pairs
