"""What a run leaves behind while it runs: JSON lines, TensorBoard scalars, one progress line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["RunLog", "read_log"]


class RunLog:
    """Writes ``log.jsonl`` and ``tensorboard/`` in a folder, and a progress line on stderr.

    Args:
        name: of the stage, for the progress line.
        folder: where; None writes nothing (every process but the first).
        resume_at: lines of later steps are dropped: they are about to be done again.
        progress: show the progress line; default: where stderr is a terminal.
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
        self._name = name
        self._file = self._writer = self._bar = self._task = None
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
        if progress if progress is not None else sys.stderr.isatty():
            self._start_bar(steps, resume_at)

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
        """Move the progress line."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)

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
