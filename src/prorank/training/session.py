"""One run of a stage in its folder: what it goes on from, what it logs, keeps and saves, and when it stops.

Both stages' loops run inside a session, so that they hold nothing but the algorithm. With several processes the first
one measures, logs and writes; what it finds, and whether anybody was asked to stop, all of them learn, so that all stop
after the same step. It knows no reward, no loss and no data.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from prorank.config import config_dict
from prorank.files import recover_folder
from prorank.model.base import LoadedBase
from prorank.model.checkpoint import save_checkpoint
from prorank.model.manifest import Manifest
from prorank.prompt.encoder import PromptEncoder
from prorank.training.checkpoint import check_output_folder, check_same_run, load_state, read_progress, save_state
from prorank.training.config import TrainingConfig
from prorank.training.optimise import build_optimiser, summed
from prorank.training.policy import Policy
from prorank.training.runlog import RunLog
from prorank.training.stopping import StopSignal

__all__ = ["RunState", "Session"]


@dataclass
class RunState:
    """What a run carries from step to step besides weights and random generators; JSON data."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Training alone, evaluations not counted; of all sessions of a resumed run."""
    best: float | None = None
    """The highest held-out score after a step."""
    best_step: int = 0
    stale: int = 0
    """Evaluations in a row without gain."""


S = TypeVar("S", bound=RunState)
T = TypeVar("T")


class Session(Generic[S]):
    """A run, new or gone on with.

    Args:
        stage: ``warmup`` or ``refine``.
        state: as at the start of a new run; where ``out`` holds the state of the same configuration, its fields are
            overwritten, and parameters, optimiser and random generators put back.
        shown: (label, name of a value) in the order of the progress line.
        progress: show it; default: a bar on a terminal, else a line every so often.

    Raises:
        ValueError: ``out`` cannot be written, or holds another run.
    """

    def __init__(
        self,
        stage: str,
        policy: Policy,
        encoder: PromptEncoder,
        config: TrainingConfig,
        out: Path,
        state: S,
        *,
        accelerator: Any,
        base: LoadedBase,
        base_name: str,
        shown: Sequence[tuple[str, str]],
        progress: bool | None = None,
    ) -> None:
        self.policy, self.config, self.out, self.state = policy, config, out, state
        self.main: bool = accelerator.is_main_process
        self.stopped = "finished"
        self._stage, self._encoder, self._accelerator = stage, encoder, accelerator
        self._shown, self._progress = shown, progress
        self._manifest = Manifest(
            encoder.template, encoder.label_ids, max_length=encoder.max_length, long_documents=encoder.long_documents,
            base_name=base_name, base_sha256=base.sha256, stage=stage, config={stage: config_dict(config)},
        )  # fmt: skip
        self._parameters = policy.parameters()
        if self.main:
            check_output_folder(out, bytes_needed=40 * sum(p.numel() for _, p in self._parameters) + (64 << 20))
            check_same_run(out, stage, config, base.sha256)
            for name in ("best", "last"):
                recover_folder(out / name)
        accelerator.wait_for_everyone()
        self.optimiser = build_optimiser(policy, config)
        if read_progress(out / "state") is not None:
            saved = load_state(out / "state", self._parameters, self.optimiser)
            for field in fields(state):
                setattr(state, field.name, saved.get(field.name, getattr(state, field.name)))
        self._stop, self._open, self._started = StopSignal(), contextlib.ExitStack(), 0.0

    def __enter__(self) -> Session[S]:
        folder = self.out if self.main else None
        steps, step = self.config.steps, self.state.step
        self._log = RunLog(folder, steps, name=self._stage, resume_at=step, progress=self._progress)
        self._open.enter_context(contextlib.closing(self._log))
        self._open.enter_context(self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def steps(self) -> Iterator[int]:
        """Numbers (from 1) of the steps that are left; after each, what is due is saved.

        The body does the step and advances ``state.step``.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM in any process, once the state is saved.
        """
        while self.state.step < self.config.steps and self.stopped == "finished":
            self._started = time.monotonic()
            yield self.state.step + 1
            step = self.state.step
            asked = self._anywhere(self._stop.asked)
            if asked or self._ends or step % self.config.save_every == 0:
                self.save()
            if asked and step < self.config.steps:
                message = f"stopped after step {step}; run the same command again to resume"
                self._log.say(message)
                raise KeyboardInterrupt(message)

    def log(self, values: dict[str, float], known: Mapping[str, float] | None = None, **amounts: int) -> None:
        """End the step's clock, write its values and move the progress line.

        Args:
            known: values from elsewhere, for the progress line alone.
            amounts: what the whole run has learned from so far; logged as ``NAME_per_second``.
        """
        self.state.seconds += time.monotonic() - self._started
        for name, amount in amounts.items():
            values[f"{name}_per_second"] = amount / max(self.state.seconds, 1e-9)
        self._log.write(self.state.step, values)
        seen = {**values, **(known or {})}
        line = " ".join(f"{label} {seen[name]:.2f}" for label, name in self._shown if name in seen)
        self._log.show(self.state.step, line)

    def log_held_out(self, values: Mapping[str, float]) -> None:
        """Write what an evaluation found, and say it."""
        self._log.write(self.state.step, values, group="held_out")
        found = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        self._log.say(f"step {self.state.step}: held out: {found}")

    def say(self, text: str) -> None:
        """A line for people, from the first process."""
        self._log.say(f"step {self.state.step}: {text}")

    @property
    def evaluation_due(self) -> bool:
        """Whether this step ends with an evaluation."""
        return self._ends or self.state.step % self.config.eval_every == 0

    def from_first(self, compute: Callable[[], T]) -> T:
        """What the first process computes, in all of them."""
        found: list[Any] = [compute() if self.main else None]
        if self._accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(found, from_process=0)
        return found[0]  # type: ignore[no-any-return]

    def keep_best(self, score: float, least_gain: float = 0.0) -> None:
        """Save ``best`` where the score is above all before, and count evaluations without gain."""
        state = self.state
        if state.best is not None and not score > state.best + least_gain:
            state.stale += 1
            return
        state.best, state.best_step, state.stale = score, state.step, 0
        if self.main:
            save_checkpoint(self.out / "best", self.policy.model, self._encoder.tokenizer, self._manifest)

    @property
    def settled(self) -> bool:
        """Whether ``patience`` has run out."""
        return 0 < self.config.patience <= self.state.stale

    def stop(self, reason: str) -> None:
        """Make this step the last one."""
        self.stopped = reason

    def save(self) -> None:
        """The state, and the checkpoint ``last``."""
        if self.main:
            progress = {**asdict(self.state), "config": config_dict(self.config)}
            save_state(self.out / "state", self._parameters, self.optimiser, progress)
            save_checkpoint(self.out / "last", self.policy.model, self._encoder.tokenizer, self._manifest)
        self._accelerator.wait_for_everyone()

    @property
    def _ends(self) -> bool:
        return self.stopped != "finished" or self.state.step == self.config.steps

    def _anywhere(self, asked: bool) -> bool:
        return bool(summed(self._accelerator, torch.tensor([float(asked)])).item())
