"""Learning curves of a training run as SVG, and the line that says how it was made."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

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
        series = [(name, [(x["step"], x[name]) for x in lines if x.get(name) is not None]) for name in names]
        series = [(name, points) for name, points in series if points and any(value for _, value in points)]
        if series:
            pictures.append((title, _chart(series)))
    return pictures


def _chart(series: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> str:
    """Lines over the steps as SVG; colours are the page's."""
    steps = [step for _, points in series for step, _ in points]
    values = [value for _, points in series for _, value in points]
    low, high = min(0.0, *values), max(values)
    high = high if high > low else low + 1
    left, top, width, height = 52, 10, 660, 170
    span = max(max(steps) - min(steps), 1)

    def place(step: int, value: float) -> str:
        x = left + width * (step - min(steps)) / span
        return f"{x:.1f},{top + height * (1 - (value - low) / (high - low)):.1f}"

    parts = [f'<svg viewBox="0 0 {left + width + 8} {top + height + 44}" role="img">']
    for share in (0.0, 0.5, 1.0):
        y, value = top + height * (1 - share), low + share * (high - low)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}h{width}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for index, (name, points) in enumerate(series):
        colour = f"var(--s{index + 1})"
        line = " ".join(place(step, value) for step, value in points)
        parts.append(f'<polyline points="{line}" style="fill:none;stroke:{colour};stroke-width:1.5"/>')
        x, y = left + index * 190, top + height + 38
        parts.append(f'<text x="{x}" y="{y}" style="fill:{colour}">{html.escape(name)}</text>')
    parts.append(f'<text x="{left}" y="{top + height + 17}">step {min(steps)}</text>')
    parts.append(f'<text x="{left + width}" y="{top + height + 17}" text-anchor="end">{max(steps)}</text>')
    return "".join(parts) + "</svg>"
