"""Learning curves of a training run as SVG, and the line that says how it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prorank.evaluate.svg import Figure, linear_scale, ticks

__all__ = ["learning_curves", "run_footer"]

Curve = tuple[str, str, tuple[str, ...]]
"""Caption, group of the log (``train`` or ``held_out``), names of the values."""


def run_footer(record: Mapping[str, Any]) -> str:
    """Time, commit and machine of a record."""
    environment = record["environment"]
    dirty = " with uncommitted changes" if record["dirty"] else ""
    return (
        f"{record['time']}; commit {str(record['commit'])[:12]}{dirty}; {environment['cpu']}, "
        f"{environment['cores']} cores"
    )


def learning_curves(log: Sequence[Mapping[str, Any]], curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """(caption, SVG) of every curve that has something other than zeros.

    Args:
        log: lines of ``log.jsonl``.
    """
    pictures = []
    for title, group, names in curves:
        lines = [line for line in log if line.get("group") == group]
        series = [(name, [(x["step"], x[name]) for x in lines if _drawn(x.get(name))]) for name in names]
        series = [(name, points) for name, points in series if points and any(value for _, value in points)]
        if series:
            pictures.append((title, _chart(title, series)))
    return pictures


def _drawn(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _chart(title: str, series: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> str:
    """Lines over the steps, with their names above them."""
    steps = [step for _, points in series for step, _ in points]
    values = [value for _, points in series for _, value in points]
    low, high = min(0.0, *values), max(values)
    high = high if high > low else low + 1
    figure = Figure(720, 240, left=64, top=28, label=title)
    x = linear_scale(min(steps), max(steps), figure.left, figure.right)
    y = linear_scale(low, high, figure.bottom, figure.top)
    figure.y_axis(y, ticks(low, high, 4), "")
    whole = [step for step in ticks(min(steps), max(steps), 8) if step == int(step)]
    figure.x_axis(x, whole, "step")
    for place, (name, points) in enumerate(series, 1):
        style = f"s{place}"
        figure.path([(x(step), y(value)) for step, value in points], f"curve {style}")
        start = figure.left + (place - 1) * 190
        figure.line(start, 12, start + 18, 12, f"bar {style}")
        figure.text(start + 24, 16, name, "name")
    return figure.svg()
