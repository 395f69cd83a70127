"""Stage 1, prompt warmup by GRPO: a base that ignores the relevance prompt learns to answer "0" or "1", and rightly.

It follows the ProRank paper (arXiv 2506.03487, section 3.1) in: GRPO as the algorithm; a finite output set {"0", "1"};
several rewards at once, output format and agreement with the relevance label; LoRA-sized changes to a small LM.
The paper is silent on, and we chose:
  - reward values: format graded (half for a label word, half for stopping after it), relevance 1 or 0;
  - rewards normalised apart, then summed: otherwise format, which every answer soon has, drowns in relevance's noise;
  - groups of 64: identical completions are computed once, so that a larger group costs nothing;
  - data: per step a few queries, each with its positive and several negatives (random first, then first-stage ones)
    in one forward pass that shares the query's prefix; positives and negatives weigh the same;
  - against the collapse to one answer: a running mean margin is taken out of the label logits that are sampled from
    (fading to nothing by prior_end), and half the squared mean margin of a query costs margin_cost;
  - no KL penalty by default (beta 0); queries without reward variance are replaced (dynamic sampling, DAPO).

It knows no evaluation: what to measure on the way comes in as ``on_eval``. Run it by ``prorank warmup``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prorank.model.base import LoadedBase
from prorank.prompt.encoder import PromptEncoder
from prorank.training.optimise import apply_gradients, learning_rate_at, summed
from prorank.training.policy import Policy, check_packing
from prorank.training.processes import open_accelerator
from prorank.training.session import RunState, Session
from prorank.training.setup import build_policy, reading_as, training_encoder
from prorank.training.warmup.config import WarmupConfig
from prorank.training.warmup.counts import COUNTS, counted, means, vector
from prorank.training.warmup.held_out import HeldOutAnswers, ask, divergence, read_answers, summary, write_answers
from prorank.training.warmup.learner import Kept, Learner
from prorank.training.warmup.prompts import PromptSampler, QueryPrompts
from prorank.training.warmup.rewards import resolve_rewards
from prorank.types import EncodedGroup

__all__ = ["WarmupResult", "WarmupState", "train_step", "warmup"]

_KL_QUERIES = 16  # held-out queries that the KL to the base is measured on
_SHOWN = (
    ("reward", "reward"), ("format", "format_success"), ("accuracy", "accuracy"), ("kl", "kl"),
    ("entropy", "entropy"), ("zero-var", "zero_variance"), ("prompts/s", "prompts_per_second"),
)  # fmt: skip
"""The progress line: what a person watches."""


@dataclass
class WarmupState(RunState):
    """What the loop carries from step to step besides weights."""

    draw: int = 0
    """Number of the next draw."""
    prior: float | None = None
    """Running mean margin."""
    prompts: int = 0
    same: int = 0
    """Steps in a row with one single greedy answer."""


class WarmupResult(NamedTuple):
    """What a finished warmup leaves."""

    best: Path
    """Checkpoint with the best held-out score."""
    last: Path
    steps: int
    seconds: float
    """Training alone, evaluations not counted; of all sessions of a resumed run."""
    prompts: int
    stopped: str
    """``finished``, ``settled`` (early stop) or ``collapsed``."""
    before: HeldOutAnswers
    after: HeldOutAnswers


def warmup(
    base: LoadedBase,
    encoder: PromptEncoder,
    sampler: PromptSampler,
    config: WarmupConfig,
    out: Path,
    *,
    base_name: str,
    on_eval: Callable[[Policy, int], Mapping[str, float]] | None = None,
    progress: bool | None = None,
    device: str | None = None,
) -> WarmupResult:
    """Train, resuming where ``out`` holds the state of the same configuration.

    Args:
        encoder: the prompt; its length limits are for inference, training cuts by the configuration.
        on_eval: called at every evaluation with the policy and the step; its values join the log.

    Raises:
        ValueError: bad input, found before any work: see the message.
        KeyboardInterrupt: after Ctrl-C (or SIGTERM), once the state is saved.
    """
    rewards = resolve_rewards(config.reward_weights())
    encoder = reading_as(encoder, config)
    encode = training_encoder(encoder, base.model, config, answer_tokens=config.max_completion_tokens)
    held_out = sampler.held_out(config.held_out_queries)
    accelerator = open_accelerator(device)
    policy = build_policy(base, encoder, config, accelerator.device)
    session = Session(
        "warmup", policy, encoder, config, out, WarmupState(), accelerator=accelerator, base=base,
        base_name=base_name, shown=_SHOWN, progress=progress,
    )  # fmt: skip
    check_packing(policy, encode(held_out[0]))
    learner = Learner(policy, config, rewards, lambda ids: encoder.tokenizer.decode(ids, skip_special_tokens=True))
    state = session.state
    after: HeldOutAnswers | None = None
    kl: dict[str, float] = {}  # measured at evaluations, shown on the progress line

    def measured() -> tuple[HeldOutAnswers, dict[str, float]]:
        policy.model.eval()
        found = ask(policy, held_out, encode)
        values = {**summary(found), **(on_eval(policy, state.step) if on_eval is not None else {})}
        if policy.has_reference:
            values["kl"] = divergence(policy, held_out[:_KL_QUERIES], encode)
        policy.model.train()
        return found, values

    with session:
        policy.model.train()
        if state.step == 0:
            before, values = session.from_first(measured)
            session.log_held_out(values)
            if session.main:
                write_answers(out / "before.json", before)
        for _ in session.steps():
            values = train_step(accelerator, learner, sampler, encode, session.optimiser, state)
            session.log(values, kl, prompts=state.prompts)
            if _collapsed(state, values, config):
                session.say(
                    f"collapse: all greedy answers of {config.collapse_steps} steps were the same; try a larger "
                    "--warmup.margin_cost, a smaller --warmup.learning_rate, or more --warmup.queries_per_step"
                )
                if config.on_collapse == "stop":
                    session.stop("collapsed")
            if session.evaluation_due:
                after, values = session.from_first(measured)
                session.log_held_out(values)
                kl = {name: value for name, value in values.items() if name == "kl"}
                session.keep_best(_score(values), least_gain=1e-3)
                if session.settled and values["format_success"] >= 0.99:
                    session.stop("settled")
        if after is None:
            after, values = session.from_first(measured)
            session.log_held_out(values)
    return WarmupResult(
        out / "best", out / "last", state.step, state.seconds, state.prompts, session.stopped,
        read_answers(out / "before.json"), after,
    )  # fmt: skip


def train_step(
    accelerator: Any,
    learner: Learner,
    sampler: PromptSampler,
    encode: Callable[[QueryPrompts], EncodedGroup],
    optimiser: torch.optim.Optimizer,
    state: WarmupState,
) -> dict[str, float]:
    """One step: rollout, reward, advantage, loss, update. Advances ``state``; returns what is logged."""
    config, step = learner.config, state.step + 1
    strength, hard = prior_strength_at(step, config), step > config.hard_start * config.steps
    counts = vector({})
    loss_sum, normaliser, kept = 0.0, 0.0, list[Kept]()
    missing = config.queries_per_step
    for _ in range(config.refill_rounds + 1):
        first, state.draw = state.draw, state.draw + missing
        mine = range(first, state.draw)[accelerator.process_index :: accelerator.num_processes]
        drawn = vector({})
        for start in range(0, len(mine), config.queries_per_forward):
            numbers = mine[start : start + config.queries_per_forward]
            prompts = [sampler.draw(number, hard=hard) for number in numbers]
            batch = learner.batch(prompts, [encode(p) for p in prompts])
            seeds = [
                f"{config.seed}:{n}:{i}" for n, p in zip(numbers, prompts, strict=True) for i in range(len(p.labels))
            ]

            rollout = learner.rollout(batch, seeds, state.prior, strength)
            rewards = learner.reward(batch, rollout)
            advantage = learner.advantage(batch, rollout, rewards)
            drawn += counted(learner, batch, rollout, rewards, advantage)
            if not advantage.live.any():
                continue
            reference = learner.reference(batch, rollout)
            loss = learner.loss(batch, rollout, advantage, reference)
            loss.total.backward()

            loss_sum, normaliser = loss_sum + float(loss.total.detach()), normaliser + float(loss.normaliser)
            drawn += vector(loss.diagnostics)
            if config.updates_per_rollout > 1:
                kept.append(learner.keep(batch, rollout, advantage, reference))
        drawn = summed(accelerator, drawn)
        counts += drawn
        missing -= int(drawn[COUNTS.index("informative")])
        if missing <= 0:
            break
    rate = learning_rate_at(step, config)
    norm, loss_mean = apply_gradients(
        accelerator, learner.policy, optimiser, rate, normaliser, loss_sum, config.max_grad_norm
    )
    for _ in range(config.updates_per_rollout - 1):  # off policy: the clipped ratio is no longer 1
        loss_sum, normaliser = 0.0, 0.0
        for one in kept:
            loss = learner.again(one)
            loss.total.backward()
            loss_sum, normaliser = loss_sum + float(loss.total.detach()), normaliser + float(loss.normaliser)
        apply_gradients(accelerator, learner.policy, optimiser, rate, normaliser, loss_sum, config.max_grad_norm)

    values = means(counts, config)
    before, decay = state.prior, config.prior_decay
    state.prior = values["margin"] if before is None else decay * before + (1 - decay) * values["margin"]
    state.step, state.prompts = step, state.prompts + int(values["prompts"])
    measured = {"loss": loss_mean, "gradient_norm": norm, "learning_rate": rate, "prior": strength * state.prior}
    return {**values, **measured}


def prior_strength_at(step: int, config: WarmupConfig) -> float:
    """How much of the prior is taken out at a step (from 1): from 1, linearly to 0 at ``prior_end`` of all steps."""
    if config.prior == "none" or config.prior_end == 0:
        return 0.0
    return max(0.0, 1 - (step - 1) / (config.prior_end * config.steps))


def _collapsed(state: WarmupState, values: Mapping[str, float], config: WarmupConfig) -> bool:
    """Whether just now ``collapse_steps`` steps in a row gave one and the same answer to every prompt.

    No greedy 1 at all means a collapse to 0 only where answers are well-formed: a base answers neither.
    """
    one = values["answers_one"]
    single = one == 1 or (one == 0 and values["format_success"] > 0.5)
    state.same = state.same + 1 if single else 0
    return state.same == config.collapse_steps


def _score(values: Mapping[str, float]) -> float:
    """What decides what is best: format success, balanced accuracy and AUC against random passages, added up."""
    return sum(values.get(name, 0.0) for name in ("format_success", "balanced_accuracy_random", "auc_random"))
