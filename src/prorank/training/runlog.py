"""What a run leaves behind while it runs: JSON lines, TensorBoard scalars, a progress line."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["RunLog", "read_log"]

_LINE_SECONDS = 30.0
"""Without a terminal a line comes this often."""


class RunLog:
    """Writes ``log.jsonl`` and ``tensorboard/`` in a folder, and shows on stderr how far the run is.

    Args:
        name: of the stage, for the progress line.
        folder: where; None writes nothing (every process but the first).
        resume_at: lines of later steps are dropped: they are about to be done again.
        progress: show how far the run is, by a bar on a terminal, else by a line at the first step, twice a minute and
            at the end; default: yes.
    """

    def __init__(
        self,
        folder: Path | None,
        steps: int,
        *,
        name: str = "warmup",
        resume_at: int = 0,
        progress: bool | None = None,
    ) -> None:
        self._name, self._steps, self._first = name, steps, resume_at
        self._began, self._next_line = time.monotonic(), math.inf
        self._file: Any = None
        self._writer: Any = None
        self._bar: Any = None
        self._task: Any = None
        if folder is None:
            return
        path = folder / "log.jsonl"
        kept = [line for line in read_log(path) if line["step"] <= resume_at] if resume_at else []
        self._file = path.open("w", encoding="utf-8")
        for line in kept:
            self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        try:
            from torch.utils.tensorboard import SummaryWriter  # needs the tensorboard package
        except ImportError:
            pass
        else:
            self._writer = SummaryWriter(folder / "tensorboard", purge_step=resume_at + 1)
        if progress is not False and sys.stderr.isatty():
            self._start_bar(steps, resume_at)
        elif progress is not False:
            self._next_line = 0.0

    def write(self, step: int, values: Mapping[str, Any], *, group: str = "train") -> None:
        """One line; numbers also as scalars ``group/name``."""
        if self._file is None:
            return
        clean = {
            k: (None if isinstance(v, float) and not math.isfinite(v) else round(v, 6) if isinstance(v, float) else v)
            for k, v in values.items()
        }
        self._file.write(json.dumps({"step": step, "group": group, **clean}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in clean.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._writer.add_scalar(f"{group}/{name}", value, step)

    def show(self, step: int, text: str) -> None:
        """Move the bar, or print a line where one is due."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        elif now >= self._next_line or (step == self._steps and self._next_line < math.inf):
            self._next_line = now + _LINE_SECONDS
            left = (now - self._began) / max(step - self._first, 1) * (self._steps - step)
            print(f"{self._name}: step {step} of {self._steps}: {text}; {_duration(left)} left", file=sys.stderr)
            sys.stderr.flush()

    def say(self, text: str) -> None:
        """A line for people, above the progress line."""
        if self._file is None:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush everything; safe to call twice."""
        for part in (self._file, self._writer):
            if part is not None:
                part.close()
        if self._bar is not None:
            self._bar.stop()
        self._file = self._writer = self._bar = None

    def _start_bar(self, steps: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn(self._name), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(), console=Console(stderr=True),
        )  # fmt: skip
        self._bar.start()
        self._task = self._bar.add_task(self._name, total=steps, completed=done, text="")


def _duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``2 h 05 min``."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a half-written last line is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines
