"""One optimiser step of warmup: draw queries, add up what each teaches over forwards and refills, then update once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import torch

from prorank.training.optimise import apply_gradients, learning_rate_at, summed
from prorank.training.warmup.config import WarmupConfig
from prorank.training.warmup.learner import STATISTICS, Learned, Learner, Stored
from prorank.training.warmup.prompts import PromptSampler, QueryPrompts
from prorank.types import EncodedGroup

__all__ = ["State", "train_step"]


class State(TypedDict):
    """What the loop carries from step to step besides weights; JSON data."""

    step: int
    """Steps done."""
    draw: int
    """Number of the next draw."""
    prior: float | None
    """Running mean margin."""
    seconds: float
    prompts: int
    best: float | None
    stale: int
    """Evaluations in a row without gain."""
    same: int
    """Steps in a row with one single greedy answer."""


def prior_strength_at(step: int, config: WarmupConfig) -> float:
    """How much of the prior is taken out at a step (from 1): from 1, linearly to 0 at ``prior_end`` of all steps."""
    if config.prior == "none" or config.prior_end == 0:
        return 0.0
    return max(0.0, 1 - (step - 1) / (config.prior_end * config.steps))


def train_step(
    accelerator: Any,
    learner: Learner,
    sampler: PromptSampler,
    encode: Callable[[QueryPrompts], EncodedGroup],
    optimiser: torch.optim.Optimizer,
    state: State,
) -> dict[str, float]:
    """Do one step, advance ``state`` and return what is logged."""
    config = learner.config
    step = state["step"] + 1
    strength, hard = prior_strength_at(step, config), step > config.hard_start * config.steps
    sums = torch.zeros(len(STATISTICS), dtype=torch.float64)
    normaliser, kept = 0.0, []
    loss_sum, informative, wanted = 0.0, 0, config.queries_per_step
    for _ in range(config.refill_rounds + 1):
        first, state["draw"] = state["draw"], state["draw"] + wanted - informative
        mine = range(first, state["draw"])[accelerator.process_index :: accelerator.num_processes]
        round_sums = torch.zeros_like(sums)
        for start in range(0, len(mine), config.queries_per_forward):
            numbers = mine[start : start + config.queries_per_forward]
            prompts = [sampler.draw(number, hard=hard) for number in numbers]
            seeds = [
                f"{config.seed}:{n}:{row}"
                for n, p in zip(numbers, prompts, strict=True)
                for row in range(len(p.labels))
            ]
            learned = learner.learn(prompts, [encode(p) for p in prompts], seeds, state["prior"], strength)
            loss_sum, normaliser = _backward(learned, loss_sum, normaliser)
            round_sums += learned.statistics
            kept += [learned.stored] if learned.stored is not None else []
        round_sums = summed(accelerator, round_sums)
        sums += round_sums
        informative += int(round_sums[STATISTICS.index("informative")])
        if informative >= wanted:
            break
    rate = learning_rate_at(step, config)
    norm, loss = apply_gradients(
        accelerator, learner.policy, optimiser, rate, normaliser, loss_sum, config.max_grad_norm
    )
    for _ in range(config.updates_per_rollout - 1):
        _again(accelerator, learner, optimiser, rate, kept)
    values = dict(zip(STATISTICS, sums.tolist(), strict=True))
    mean_margin = values["margin"] / max(values["queries"], 1)
    before = state["prior"]
    decay = config.prior_decay
    state["prior"] = mean_margin if before is None else decay * before + (1 - decay) * mean_margin
    state["step"] = step
    state["prompts"] += int(values["prompts"])
    return {
        **_means(values, config),
        "loss": loss,
        "gradient_norm": norm,
        "learning_rate": rate,
        "prior": strength * state["prior"],
    }


def _means(values: dict[str, float], config: WarmupConfig) -> dict[str, float]:
    per_query = ("margin", "margin_gap")
    per_token = ("kl", "clipped")
    counts = {"queries": values["queries"], "prompts": values["prompts"], "informative": values["informative"]}
    means = {
        name: value / max(values["queries" if name in per_query else "tokens" if name in per_token else "prompts"], 1)
        for name, value in values.items()
        if name not in (*counts, "tokens")
    }
    if not config.beta:
        del means["kl"]  # the reference is not computed: see the evaluations
    means["reward"] = (
        config.format_weight * means["reward_format"] + config.relevance_weight * means["reward_relevance"]
    )
    return {**means, **counts}


def _backward(learned: Learned, loss_sum: float, normaliser: float) -> tuple[float, float]:
    if learned.total is None:
        return loss_sum, normaliser
    learned.total.backward()
    return loss_sum + float(learned.total.detach()), normaliser + learned.normaliser


def _again(accelerator: Any, learner: Learner, optimiser: Any, rate: float, kept: list[Stored]) -> None:
    loss_sum, normaliser = 0.0, 0.0
    for stored in kept:
        loss_sum, normaliser = _backward(learner.again(stored), loss_sum, normaliser)
    limit = learner.config.max_grad_norm
    apply_gradients(accelerator, learner.policy, optimiser, rate, normaliser, loss_sum, limit)
