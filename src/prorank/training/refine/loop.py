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

import contextlib
import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prorank.backends.torch import TorchBackend
from prorank.config import config_dict
from prorank.model.base import LoadedBase
from prorank.model.checkpoint import Manifest, save_checkpoint
from prorank.prompt.encoder import PromptEncoder
from prorank.reranker import Reranker
from prorank.training.checkpoint import check_output_folder, check_same_run, load_state, read_progress, save_state
from prorank.training.optimise import apply_gradients, build_optimiser, learning_rate_at, summed
from prorank.training.policy import Policy
from prorank.training.refine.config import RefineConfig
from prorank.training.refine.learner import ListLearner, ListStatistics
from prorank.training.refine.lists import Mixture
from prorank.training.runlog import RunLog
from prorank.training.setup import build_policy, reading_as, training_encoder
from prorank.training.stopping import StopSignal

__all__ = ["RefineResult", "refine"]

OnEval = Callable[[Reranker], Mapping[str, float]]


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
        on_eval: called before the first step and every ``eval_every`` with a reranker as users will get it; its values
            are logged.
        score: which of them decides what is best.

    Raises:
        ValueError: bad input, found before any work: see the message.
        KeyboardInterrupt: after Ctrl-C (or SIGTERM), once the state is saved.
    """
    from accelerate import Accelerator

    encoder = reading_as(encoder, config)
    instructions = [source.instruction for source in mixture.sources]
    encode = training_encoder(encoder, base.model, config, instructions=instructions, section="refine")
    accelerator = Accelerator(cpu=device == "cpu")
    main = accelerator.is_main_process
    policy = build_policy(base, encoder, config, accelerator.device, adapter=adapter)
    parameters = policy.parameters()
    if main:
        check_output_folder(out, bytes_needed=40 * sum(p.numel() for _, p in parameters) + (64 << 20))
        check_same_run(out, "refine", config, base.sha256)
    accelerator.wait_for_everyone()
    optimiser = build_optimiser(policy, config)
    learner = ListLearner(policy, config)
    manifest = Manifest(
        encoder.template, encoder.label_ids, max_length=encoder.max_length, long_documents=encoder.long_documents,
        base_name=base_name, base_sha256=base.sha256, stage="refine", config={"refine": config_dict(config)},
    )  # fmt: skip
    state: dict[str, Any] = {
        "step": 0, "seconds": 0.0, "documents": 0, "tokens": 0, "best": None, "best_step": 0, "stale": 0,
        "before": {}, "after": {}, "measured_at": -1,
    }  # fmt: skip
    if read_progress(out / "state") is not None:
        saved = load_state(out / "state", parameters, optimiser)
        state = {name: saved[name] for name in state}
    log = RunLog(out if main else None, config.steps, name="refine", resume_at=state["step"], progress=progress)

    def evaluate() -> None:
        if on_eval is None or not main:
            return
        values = dict(on_eval(_reranker(policy, encoder)))
        state["after"], state["measured_at"] = values, state["step"]
        log.write(state["step"], values, group="held_out")
        log.say(f"step {state['step']}: held out: " + ", ".join(f"{k} {v:.4f}" for k, v in values.items()))
        better = state["best"] is None or values.get(score, -math.inf) > state["best"]
        state["stale"] = 0 if better else state["stale"] + 1
        if better:
            state["best"], state["best_step"] = values.get(score), state["step"]
            if state["step"]:
                save_checkpoint(out / "best", policy.model, encoder.tokenizer, manifest)

    def save() -> None:
        if main:
            save_state(out / "state", parameters, optimiser, {**state, "config": config_dict(config)})
            save_checkpoint(out / "last", policy.model, encoder.tokenizer, manifest)
        accelerator.wait_for_everyone()

    stopped = "finished"
    with StopSignal() as stop, contextlib.closing(log):
        if state["step"] == 0:
            evaluate()
            state["before"], state["best"] = state["after"], None
        policy.model.train()
        while state["step"] < config.steps and stopped == "finished":
            started = time.monotonic()
            values = _train_step(accelerator, learner, mixture, encode, optimiser, state)
            state["seconds"] += time.monotonic() - started
            step = state["step"]
            values["documents_per_second"] = state["documents"] / max(state["seconds"], 1e-9)
            log.write(step, values)
            log.show(step, _line(values))
            if step % config.eval_every == 0 or step == config.steps:
                evaluate()
                policy.model.train()
                if config.patience and state["stale"] >= config.patience:
                    stopped = "settled"
            if step % config.save_every == 0 or step == config.steps or stopped != "finished" or stop.asked:
                save()
            if stop.asked and step < config.steps:
                raise KeyboardInterrupt(f"stopped after step {step}; run the same command again to resume")
    best = out / "best" if (out / "best").is_dir() else out / "last"
    return RefineResult(
        best, out / "last", state["step"], state["seconds"], state["documents"], stopped, state["before"],
        state["after"], state["best_step"],
    )  # fmt: skip


def hard_at(step: int, config: RefineConfig) -> int:
    """How many rivals of a list come from the candidates at a step (from 1)."""
    ramp = config.hard_ramp * config.steps
    return round(config.hard_negatives * min(1.0, (step - 1) / ramp)) if ramp >= 1 else config.hard_negatives


def _train_step(
    accelerator: Any,
    learner: ListLearner,
    mixture: Mixture,
    encode: Callable[..., Any],
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
) -> dict[str, float]:
    """Learn from the step's lists, update once, advance ``state`` and return what is logged."""
    config = learner.config
    step = state["step"] + 1
    first = (step - 1) * config.queries_per_step
    numbers = range(first, first + config.queries_per_step)[accelerator.process_index :: accelerator.num_processes]
    seen: list[ListStatistics] = []
    for number in numbers:
        item = mixture.draw(number, hard_at(step, config))
        seen.append(learner.learn(item, encode(item)))
    rate = learning_rate_at(step, config)
    norm, loss = apply_gradients(
        accelerator, learner.policy, optimiser, rate, float(len(seen)), sum(s.loss for s in seen), config.max_grad_norm
    )
    totals = summed(accelerator, _totals(seen)).tolist()
    state["step"] = step
    state["documents"] += int(totals[0])
    state["tokens"] += int(totals[1])
    means = {
        name: totals[2 + 2 * i] / totals[3 + 2 * i]
        for i, name in enumerate(("best_first", "gap", "margin"))
        if totals[3 + 2 * i]
    }
    parts = {f"loss_{name}": v for s in seen[-1:] for name, v in s.parts.items()} if len(learner.weights) > 1 else {}
    return {"loss": loss, **means, **parts, "gradient_norm": norm, "learning_rate": rate, "hard": hard_at(step, config)}


def _totals(seen: Sequence[ListStatistics]) -> torch.Tensor:
    """Documents, tokens, and (sum, count) of best_first, gap and mean margin: what processes add up."""
    values: list[float] = [sum(s.documents for s in seen), sum(s.tokens for s in seen)]
    for name in ("best_first", "gap", "mean_margin"):
        known = [v for s in seen if not math.isnan(v := getattr(s, name))]
        values += [sum(known), len(known)]
    return torch.tensor(values, dtype=torch.float64)


def _reranker(policy: Policy, encoder: PromptEncoder) -> Reranker:
    """A reranker on a copy of the weights as they are now, adapters merged: what a user of the checkpoint will get."""
    model = copy.deepcopy(policy.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    if policy.autocast is not None:
        model = model.to(policy.autocast)
    return Reranker(TorchBackend(model, encoder.label_ids), encoder, name="in training")


def _line(values: Mapping[str, float]) -> str:
    """The progress line: what a person watches."""
    shown = (("loss", "loss"), ("best first", "best_first"), ("gap", "gap"), ("docs/s", "documents_per_second"))
    return " ".join(f"{name} {values[key]:.2f}" for name, key in shown if key in values)
