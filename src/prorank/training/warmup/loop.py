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

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from prorank.config import config_dict
from prorank.model.base import LoadedBase
from prorank.model.checkpoint import Manifest, save_checkpoint
from prorank.prompt.encoder import PromptEncoder
from prorank.training.checkpoint import check_output_folder, check_same_run, load_state, read_progress, save_state
from prorank.training.optimise import build_optimiser
from prorank.training.policy import Policy, check_packing
from prorank.training.runlog import RunLog
from prorank.training.setup import build_policy, reading_as, training_encoder
from prorank.training.stopping import StopSignal
from prorank.training.warmup.config import WarmupConfig
from prorank.training.warmup.held_out import HeldOutAnswers, ask, divergence, read_answers, summary, write_answers
from prorank.training.warmup.learner import Learner
from prorank.training.warmup.prompts import PromptSampler
from prorank.training.warmup.rewards import resolve_rewards
from prorank.training.warmup.step import State, train_step

__all__ = ["WarmupResult", "warmup"]


_KL_QUERIES = 16  # held-out queries that the KL to the base is measured on


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
    from accelerate import Accelerator

    rewards = resolve_rewards(config.reward_weights())
    encoder = reading_as(encoder, config)
    encode = training_encoder(encoder, base.model, config, answer_tokens=config.max_completion_tokens)
    held_out = sampler.held_out(config.held_out_queries)
    accelerator = Accelerator(cpu=device == "cpu")
    main = accelerator.is_main_process
    policy = build_policy(base, encoder, config, accelerator.device)
    parameters = policy.parameters()
    if main:
        check_output_folder(out, bytes_needed=40 * sum(p.numel() for _, p in parameters) + (64 << 20))
        check_same_run(out, "warmup", config, base.sha256)
    accelerator.wait_for_everyone()
    optimiser = build_optimiser(policy, config)
    check_packing(policy, encode(held_out[0]))
    learner = Learner(policy, config, rewards, lambda ids: encoder.tokenizer.decode(ids, skip_special_tokens=True))
    manifest = Manifest(
        encoder.template, encoder.label_ids, max_length=encoder.max_length, long_documents=encoder.long_documents,
        base_name=base_name, base_sha256=base.sha256, stage="warmup", config={"warmup": config_dict(config)},
    )  # fmt: skip

    state: State = {
        "step": 0,
        "draw": 0,
        "prior": None,
        "seconds": 0.0,
        "prompts": 0,
        "best": None,
        "stale": 0,
        "same": 0,
    }
    if read_progress(out / "state") is not None:
        saved = load_state(out / "state", parameters, optimiser)
        state = {name: saved[name] for name in state}  # type: ignore[assignment]
    log = RunLog(out if main else None, config.steps, resume_at=state["step"], progress=progress)
    after: HeldOutAnswers | None = None
    known: dict[str, float] = {}  # measured at evaluations, shown on the progress line

    def evaluate(step: int) -> tuple[HeldOutAnswers, dict[str, float]]:
        policy.model.eval()
        found = ask(policy, held_out, encode)
        values = {**summary(found), **(on_eval(policy, step) if on_eval is not None else {})}
        if policy.has_reference:
            values["kl"] = known["kl"] = divergence(policy, held_out[:_KL_QUERIES], encode)
        policy.model.train()
        log.write(step, values, group="held_out")
        log.say(f"step {step}: held out: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
        return found, values

    def save() -> None:
        if main:
            save_state(out / "state", parameters, optimiser, {**state, "config": config_dict(config)})
            save_checkpoint(out / "last", policy.model, encoder.tokenizer, manifest)
        accelerator.wait_for_everyone()

    stopped = "finished"
    with StopSignal() as stop, contextlib.closing(log):
        policy.model.train()
        if state["step"] == 0:
            found, _ = evaluate(0)
            if main:
                write_answers(out / "before.json", found)
        while state["step"] < config.steps and stopped == "finished":
            started = time.monotonic()
            values = train_step(accelerator, learner, sampler, encode, optimiser, state)
            step = state["step"]
            state["seconds"] += time.monotonic() - started
            values["prompts_per_second"] = state["prompts"] / max(state["seconds"], 1e-9)
            log.write(step, values)
            log.show(step, _line({**values, **known}))
            if _collapsed(state, values, config):
                log.say(
                    f"step {step}: collapse: all greedy answers of {config.collapse_steps} steps were the same; try a "
                    "larger --warmup.margin_cost, a smaller --warmup.learning_rate, or more --warmup.queries_per_step"
                )
                stopped = "collapsed" if config.on_collapse == "stop" else stopped
            if step % config.eval_every == 0 or step == config.steps or stopped == "collapsed":
                after, values = evaluate(step)
                if _improved(state, values):
                    if main:
                        save_checkpoint(out / "best", policy.model, encoder.tokenizer, manifest)
                elif config.patience and state["stale"] >= config.patience and values["format_success"] >= 0.99:
                    stopped = "settled"
            if step % config.save_every == 0 or step == config.steps or stopped != "finished" or stop.asked:
                save()
            if stop.asked and step < config.steps:
                message = f"stopped after step {step}; run the same command again to resume"
                log.say(message)
                raise KeyboardInterrupt(message)
        if after is None:
            after, _ = evaluate(state["step"])
    before = read_answers(out / "before.json")
    return WarmupResult(
        out / "best", out / "last", state["step"], state["seconds"], state["prompts"], stopped, before, after
    )


def _collapsed(state: State, values: Mapping[str, float], config: WarmupConfig) -> bool:
    """Whether just now ``collapse_steps`` steps in a row gave one and the same answer to every prompt.

    No greedy 1 at all means a collapse to 0 only where answers are well-formed: a base answers neither.
    """
    one = values["answers_one"]
    single = one == 1 or (one == 0 and values["format_success"] > 0.5)
    state["same"] = state["same"] + 1 if single else 0
    return state["same"] == config.collapse_steps


def _improved(state: State, values: Mapping[str, float]) -> bool:
    """Whether the held-out score rose: format success, balanced accuracy and AUC against random passages, added up."""
    score = sum(values.get(name, 0.0) for name in ("format_success", "balanced_accuracy_random", "auc_random"))
    better = state["best"] is None or score > state["best"] + 1e-3
    state["stale"] = 0 if better else state["stale"] + 1
    state["best"] = score if better else state["best"]
    return better


def _line(values: Mapping[str, float]) -> str:
    """The progress line: what a person watches."""
    shown = (
        ("reward", "reward"), ("format", "format_success"), ("accuracy", "accuracy"), ("kl", "kl"),
        ("entropy", "entropy"), ("zero-var", "zero_variance"), ("prompts/s", "prompts_per_second"),
    )  # fmt: skip
    return " ".join(f"{name} {values[key]:.2f}" for name, key in shown if key in values)
