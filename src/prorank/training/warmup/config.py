"""Every setting of stage 1, its default and its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prorank.training.config import TrainingConfig

__all__ = ["WarmupConfig"]


@dataclass(frozen=True)
class WarmupConfig(TrainingConfig):
    """Stage 1, prompt warmup by GRPO. The paper's values were not available to us; these are ours (warmup.md)."""

    negatives: int = 3
    """Negatives per query, random and hard together."""
    hard_negatives: int = 0
    """How many of them come from the first stage instead of the whole corpus, once hard_start is reached."""
    hard_start: float = 0.5
    """Share of the steps that use only random (easy) negatives."""
    hard_rank_from: int = 3
    """First rank (from 1) of the first stage that hard negatives are drawn from; the top holds unjudged positives."""
    hard_rank_to: int = 40
    """Last rank that hard negatives are drawn from."""
    relevance_threshold: int | None = None
    """Judgments of at least this are relevant; required if grades go above 1."""

    objective: Literal["grpo", "exact", "supervised"] = "grpo"
    """grpo samples; exact uses the gradient of the expected reward over the finite output set; supervised uses
    cross-entropy on the label word and the end of the turn."""
    group_size: int = 64
    """Completions sampled per prompt (G); identical ones are computed once, so more are nearly free."""
    max_completion_tokens: int = 2
    """Longest completion: the label word and the end of the turn."""
    temperature: float = 1.0
    """Sampling temperature."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this probability."""
    format_weight: float = 1.0
    """Weight of the format reward (0: relevance only)."""
    relevance_weight: float = 1.0
    """Weight of the relevance reward (0: format only)."""
    extra_rewards: tuple[str, ...] = ()
    """Further rewards as package.module:function=weight."""
    normalise: Literal["apart", "sum"] = "apart"
    """apart: normalise each reward, then sum; sum: sum the rewards, then normalise."""
    scale_rewards: bool = True
    """Divide advantages by the group's standard deviation (not in dr_grpo)."""
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    """How token losses are averaged."""
    clip_low: float = 0.2
    """Lower end of the clip: 1 - clip_low."""
    clip_high: float = 0.2
    """Upper end of the clip: 1 + clip_high."""
    beta: float = 0.0
    """Weight of the KL divergence to the reference policy (the base); above 0 it costs another forward pass."""
    updates_per_rollout: int = 1
    """Optimiser steps on the same completions; 1 is on-policy and needs no second forward pass."""
    refill_rounds: int = 1
    """How often queries without any reward variance are replaced by fresh ones within a step."""
    balance: bool = True
    """Give a query's positives and negatives the same weight."""
    prior: Literal["running", "query", "none"] = "running"
    """Mean margin to subtract from the label logits before sampling: a running one, the query's own, or none."""
    prior_decay: float = 0.5
    """Decay of the running mean per step."""
    prior_end: float = 0.5
    """Share of the steps after which the correction has faded (linearly) to nothing."""
    margin_cost: float = 0.1
    """Weight of half the squared mean margin of a query's prompts; positives and negatives weigh the same."""
    entropy_bonus: float = 0.0
    """Weight of the entropy of the first token."""

    queries_per_forward: int = 1
    """Queries per forward pass; a step accumulates over several. The result does not depend on it."""
    collapse_steps: int = 20
    """Report collapse when all greedy answers of this many steps in a row are the same."""
    on_collapse: Literal["report", "stop"] = "report"
    """What to do on collapse."""

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
