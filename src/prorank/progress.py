"""Progress on stderr: a bar for anything that counts what it has done, and a bar for each system of an evaluation."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator

__all__ = ["progress_bar", "system_progress"]

_PAUSE = 60.0
"""Seconds between two lines of progress where stderr is no terminal."""


@contextlib.contextmanager
def progress_bar(label: str, total: int | None, *, shown: bool = True) -> Iterator[Callable[[int], None] | None]:
    """A bar with count and time left.

    Args:
        total: what the counts add up to; None where that is not known.
        shown: False gives None and shows nothing.

    Yields:
        A function to call with how many more are done, or None.
    """
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.advance(task, done)


@contextlib.contextmanager
def system_progress(unit: str = "queries") -> Iterator[Callable[[str, int], Callable[[int, int], None]]]:
    """A bar a system on stderr with rate and time left; where stderr is no terminal, such a line a minute.

    Args:
        unit: what is counted.
    """
    if not sys.stderr.isatty():
        yield functools.partial(_lines, unit=unit)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def on_system(name: str, total: int) -> Callable[[int, int], None]:
            task = bars.add_task(name, total=total, rate="")

            def on_query(done: int, resumed: int) -> None:
                speed = bars.tasks[task].speed
                rate = f"{speed:.2f} {unit}/s" if speed else ""
                words = f"{rate} ({resumed} resumed)" if resumed else rate
                bars.update(task, completed=done, rate=words)

            return on_query

        yield on_system


def _lines(name: str, total: int, *, unit: str) -> Callable[[int, int], None]:
    started = said = time.monotonic()

    def on_query(done: int, resumed: int) -> None:
        nonlocal said
        now = time.monotonic()
        if done > resumed and now - said >= _PAUSE:
            said, rate = now, (done - resumed) / (now - started)
            left = (total - done) / rate / 60
            words = f"{name}: {done} of {total} {unit}, {rate:.2f} {unit}/s, {left:.0f} min left"
            print(words, file=sys.stderr, flush=True)

    return on_query
