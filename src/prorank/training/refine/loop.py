"""Stage 2, fine-grained score learning: the margin logit("1") - logit("0") learns to order; no layer is added.

It follows the ProRank paper (arXiv 2506.03487, section 3.2) in: going on from the warmed-up model; a score that is read
off the logits of the output set's tokens; one forward pass for a document.
The paper is silent on, and we chose:
  - the loss: a contrastive softmax over the list, with a small pointwise cross-entropy that keeps 0 where "0" turns
    into "1"; RankNet, LambdaLoss, ListNet and distillation from a teacher (listwise KL, MarginMSE) are options;
  - lists of one relevant document and its rivals; the number of rivals that come from the first stage grows from none;
  - all documents of a list share the query's prefix, forward and backward, by the functions that score at inference;
  - LoRA: warmup's own adapter is trained on, so that both stages together are one adapter.

It knows no evaluation: what to measure on the way comes in as ``on_eval``. Run it by ``prorank refine``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prorank.model.base import LoadedBase
from prorank.prompt.encoder import PromptEncoder
from prorank.reranker import Reranker
from prorank.training.optimise import apply_gradients, learning_rate_at, summed
from prorank.training.processes import open_accelerator
from prorank.training.refine.config import RefineConfig
from prorank.training.refine.learner import ListLearner, ListStatistics
from prorank.training.refine.lists import Mixture, RankingList
from prorank.training.session import RunState, Session
from prorank.training.setup import build_policy, reading_as, training_encoder
from prorank.training.trial import trial_reranker
from prorank.types import EncodedGroup

__all__ = ["OnEval", "RefineResult", "RefineState", "refine", "train_step"]

OnEval = Callable[[Reranker], Mapping[str, float]]
_SHOWN = (("loss", "loss"), ("best first", "best_first"), ("gap", "gap"), ("docs/s", "documents_per_second"))
"""The progress line: what a person watches."""


@dataclass
class RefineState(RunState):
    """What the loop carries from step to step besides weights."""

    documents: int = 0
    tokens: int = 0
    before: dict[str, float] = field(default_factory=dict)
    """What ``on_eval`` said before the first step."""
    after: dict[str, float] = field(default_factory=dict)
    """What it said last."""


class RefineResult(NamedTuple):
    """What a finished stage 2 leaves."""

    best: Path
    """Checkpoint with the best ``score`` (the last one where nothing was measured)."""
    last: Path
    steps: int
    seconds: float
    """Training alone, evaluations not counted; of all sessions of a resumed run."""
    documents: int
    stopped: str
    """``finished`` or ``settled`` (early stop)."""
    before: Mapping[str, float]
    """What ``on_eval`` said before the first step."""
    after: Mapping[str, float]
    """What it said last."""
    best_step: int


def refine(
    base: LoadedBase,
    encoder: PromptEncoder,
    mixture: Mixture,
    config: RefineConfig,
    out: Path,
    *,
    base_name: str,
    adapter: Path | None = None,
    on_eval: OnEval | None = None,
    score: str = "nDCG@10",
    progress: bool | None = None,
    device: str | None = None,
) -> RefineResult:
    """Train, resuming where ``out`` holds the state of the same configuration.

    Args:
        base: the weights that ``adapter`` stands on, or that get a fresh one.
        encoder: the prompt; its length limits are for inference, training cuts by the configuration.
        adapter: a peft folder to go on from.
        on_eval: called before the first step and every ``eval_every`` with a reranker as users will get it, which lives
            for the call; its values are logged.
        score: which of them decides what is best.

    Raises:
        ValueError: bad input, found before any work: see the message.
        KeyboardInterrupt: after Ctrl-C (or SIGTERM), once the state is saved.
    """
    encoder = reading_as(encoder, config)
    instructions = [source.instruction for source in mixture.sources]
    encode = training_encoder(encoder, base.model, config, instructions=instructions, section="refine")
    accelerator = open_accelerator(device)
    policy = build_policy(base, encoder, config, accelerator.device, adapter=adapter)
    session = Session(
        "refine", policy, encoder, config, out, RefineState(), accelerator=accelerator, base=base,
        base_name=base_name, shown=_SHOWN, progress=progress,
    )  # fmt: skip
    learner, state = ListLearner(policy, config), session.state

    def measured() -> dict[str, float]:
        assert on_eval is not None
        with trial_reranker(policy, encoder) as reranker:
            return dict(on_eval(reranker))

    with session:
        policy.model.train()
        if state.step == 0 and on_eval is not None:
            state.before = state.after = session.from_first(measured)
            session.log_held_out(state.before)
        for _ in session.steps():
            values = train_step(accelerator, learner, mixture, encode, session.optimiser, state)
            session.log(values, documents=state.documents)
            if session.evaluation_due and on_eval is not None:
                state.after = session.from_first(measured)
                session.log_held_out(state.after)
                if score in state.after:  # without judgments nothing is best, and the last checkpoint is taken
                    session.keep_best(state.after[score])
                if session.settled:
                    session.stop("settled")
    best = out / "best" if (out / "best").is_dir() else out / "last"
    return RefineResult(
        best, out / "last", state.step, state.seconds, state.documents, session.stopped, state.before, state.after,
        state.best_step,
    )  # fmt: skip


def train_step(
    accelerator: Any,
    learner: ListLearner,
    mixture: Mixture,
    encode: Callable[[RankingList], EncodedGroup],
    optimiser: torch.optim.Optimizer,
    state: RefineState,
) -> dict[str, float]:
    """One step: lists, their margins, the loss, update. Advances ``state``; returns what is logged."""
    config, step = learner.config, state.step + 1
    hard, rate = hard_at(step, config), learning_rate_at(step, config)
    first = (step - 1) * config.queries_per_step
    seen: list[ListStatistics] = []
    for number in range(first, first + config.queries_per_step)[accelerator.process_index :: accelerator.num_processes]:
        item = mixture.draw(number, hard)
        seen.append(learner.learn(item, encode(item)))  # margins, loss, gradients: both passes share the prefix
    norm, loss = apply_gradients(
        accelerator, learner.policy, optimiser, rate, float(len(seen)), sum(s.loss for s in seen), config.max_grad_norm
    )
    documents, tokens, *sums = summed(accelerator, _totals(seen)).tolist()
    state.step, state.documents, state.tokens = step, state.documents + int(documents), state.tokens + int(tokens)
    names = ("best_first", "gap", "margin")
    means = {name: sums[2 * i] / sums[2 * i + 1] for i, name in enumerate(names) if sums[2 * i + 1]}
    parts = {f"loss_{name}": v for s in seen[-1:] for name, v in s.parts.items()} if len(learner.weights) > 1 else {}
    return {"loss": loss, **means, **parts, "gradient_norm": norm, "learning_rate": rate, "hard": hard}


def hard_at(step: int, config: RefineConfig) -> int:
    """How many rivals of a list come from the candidates at a step (from 1)."""
    ramp = config.hard_ramp * config.steps
    return round(config.hard_negatives * min(1.0, (step - 1) / ramp)) if ramp >= 1 else config.hard_negatives


def _totals(seen: Sequence[ListStatistics]) -> torch.Tensor:
    """Documents, tokens, and (sum, count) of best_first, gap and mean margin: what processes add up."""
    values: list[float] = [sum(s.documents for s in seen), sum(s.tokens for s in seen)]
    for name in ("best_first", "gap", "mean_margin"):
        known = [v for s in seen if not math.isnan(v := getattr(s, name))]
        values += [sum(known), len(known)]
    return torch.tensor(values, dtype=torch.float64)
