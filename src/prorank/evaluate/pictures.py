"""The pictures of a report, from plain numbers to SVG. Axes that mean the same thing share one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prorank.evaluate.significance import Interval
from prorank.evaluate.svg import Figure, linear_scale, log_scale, ticks

__all__ = ["QualityPoint", "gain_bars", "intervals", "quality_against_latency", "reliability", "score_histograms"]


class QualityPoint(NamedTuple):
    """One system: how good and how slow."""

    name: str
    quality: Interval
    seconds: float | None
    """Median seconds a query; None where nothing was timed: it is drawn as a level, not as a point."""


def intervals(rows: Sequence[tuple[str, Interval]], measure: str) -> str:
    """One row a system: the mean as a point, its confidence interval as a bar."""
    left = 24 + 7.2 * max((len(name) for name, _ in rows), default=8)
    figure = Figure(720, 56 + 30 * len(rows), left=min(left, 300), right=70, label=f"{measure} with intervals")
    low = min((i.low for _, i in rows), default=0.0)
    high = max((i.high for _, i in rows), default=1.0)
    pad = max((high - low) * 0.08, 0.005)
    x = linear_scale(low - pad, high + pad, figure.left, figure.right)
    figure.x_axis(x, ticks(low - pad, high + pad, 6), measure, grid=True)
    for place, (name, interval) in enumerate(rows):
        y = figure.top + 18 + 30 * place
        style = f"s{0 if place == 0 else 1}"
        words = f"{name}: {interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        figure.text(figure.left - 10, y + 4, _short(name, 38), "name", "end")
        figure.line(x(interval.low), y, x(interval.high), y, f"bar {style}", words)
        figure.circle(x(interval.mean), y, 5, f"dot {style}", words)
        figure.text(figure.right + 8, y + 4, f"{interval.mean:.4f}", "value")
    return figure.svg()


def gain_bars(gains: Mapping[str, float], measure: str, limit: float | None = None) -> str:
    """One bar a query, sorted: its measure minus the first stage's. Blue above zero, orange below.

    Args:
        gains: query_id -> difference.
        limit: half the height of the axis in the measure's unit, to give several pictures one scale.
    """
    ordered = sorted(gains.items(), key=lambda item: -item[1])
    limit = limit or max((abs(gain) for gain in gains.values()), default=0.0) or 1.0
    figure = Figure(720, 230, bottom=34, label=f"gain in {measure} of each query over the first stage")
    y = linear_scale(-limit, limit, figure.bottom, figure.top)
    figure.y_axis(y, ticks(-limit, limit, 4), f"gain in {measure}")
    width = (figure.right - figure.left) / max(len(ordered), 1)
    gap = 1.0 if width > 4 else 0.0
    for place, (query_id, gain) in enumerate(ordered):
        if gain:
            top, bottom = sorted((y(gain), y(0)))
            style = "pos" if gain > 0 else "neg"
            start = figure.left + place * width
            figure.rect(start, top, width - gap, bottom - top, style, f"{query_id}: {gain:+.4f}")
    figure.line(figure.left, y(0), figure.right, y(0), "axis")
    better = sum(gain > 0 for gain in gains.values())
    worse = sum(gain < 0 for gain in gains.values())
    words = f"{len(ordered)} queries: {better} better, {worse} worse, {len(ordered) - better - worse} equal"
    figure.text((figure.left + figure.right) / 2, figure.bottom + 22, words, "label", "middle")
    return figure.svg()


def quality_against_latency(points: Sequence[QualityPoint], measure: str) -> str:
    """Points over median latency (logarithmic); systems without a latency as dashed levels."""
    figure = Figure(720, 340, right=150, label=f"{measure} against latency")
    low = min((p.quality.low for p in points), default=0.0)
    high = max((p.quality.high for p in points), default=1.0)
    pad = max((high - low) * 0.08, 0.005)
    y = linear_scale(low - pad, high + pad, figure.bottom, figure.top)
    figure.y_axis(y, ticks(low - pad, high + pad, 5), measure)
    timed = [(p, max(p.seconds, 1e-5)) for p in points if p.seconds is not None]
    first = min((seconds for _, seconds in timed), default=0.01) / 2
    last = max((seconds for _, seconds in timed), default=10.0) * 2
    x = log_scale(first, last, figure.left, figure.right)
    decades = [10.0**power * factor for power in range(-5, 5) for factor in (1, 2, 5)]
    shown = [value for value in decades if first <= value <= last]
    figure.x_axis(x, shown if len(shown) <= 8 else [v for v in shown if f"{v:.0e}"[0] == "1"], "median seconds a query")
    labels: list[tuple[float, str]] = []
    for place, point in enumerate(points):
        style = f"s{place % 6}"
        middle = y(point.quality.mean)
        words = f"{point.name}: {point.quality.mean:.4f}"
        if point.seconds is None:
            figure.line(figure.left, middle, figure.right, middle, f"level {style}", f"{words}, not timed")
            labels.append((middle, point.name))
            continue
        position = x(max(point.seconds, 1e-5))
        title = f"{words} [{point.quality.low:.4f}, {point.quality.high:.4f}], {point.seconds:.3g} s"
        figure.line(position, y(point.quality.low), position, y(point.quality.high), f"bar {style}", title)
        figure.circle(position, middle, 6, f"dot {style}", title)
        labels.append((middle, point.name))
    for middle, name in _spread(labels, 15, figure.top + 8, figure.bottom):
        figure.text(figure.right + 10, middle + 4, _short(name, 20), "name")
    return figure.svg()


def score_histograms(groups: Mapping[str, Sequence[float]], axis: str = "margin") -> str:
    """Shares of each group's scores over common bins, overlaid; every group sums to 1.

    The axis covers the middle 99.8 % of all scores; what lies beyond is counted in the outermost bins.
    """
    everything = np.concatenate([np.asarray(list(scores), dtype=float) for scores in groups.values()] or [np.zeros(1)])
    figure = Figure(720, 270, top=32, label=f"distribution of the {axis}")  # the legend stands above the curves
    if not everything.size:
        return figure.svg()
    low, high = np.quantile(everything, [0.001, 0.999])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 41)
    shares = {
        name: np.histogram(np.clip(list(scores), low, high), edges)[0] / max(len(scores), 1)
        for name, scores in groups.items()
    }
    tallest = max((float(share.max()) for share in shares.values()), default=1.0) or 1.0
    x = linear_scale(low, high, figure.left, figure.right)
    y = linear_scale(0, tallest * 1.05, figure.bottom, figure.top)
    figure.y_axis(y, ticks(0, tallest * 1.05, 4), "share")
    for place, share in enumerate(shares.values()):
        points = [(x(low), y(0))]
        for start, end, height in zip(edges, edges[1:], share, strict=False):
            points += [(x(start), y(height)), (x(end), y(height))]
        figure.path([*points, (x(high), y(0))], f"area h{place % 3}", closed=True)
    figure.x_axis(x, ticks(low, high, 7), axis)
    start = figure.left
    for place, (name, scores) in enumerate(groups.items()):
        words = f"{name} ({len(scores)})"
        figure.rect(start, 8, 12, 12, f"area h{place % 3}")
        figure.text(start + 18, 18, words, "name")
        start += 44 + 6.8 * len(words)
    return figure.svg()


def reliability(bins: Sequence[tuple[float, float, float]]) -> str:
    """A reliability diagram: (mean probability, observed share of relevant, count) a bin; the diagonal is perfect."""
    figure = Figure(360, 330, label="reliability diagram")
    x = linear_scale(0, 1, figure.left, figure.right)
    y = linear_scale(0, 1, figure.bottom, figure.top)
    figure.y_axis(y, ticks(0, 1), "observed share of relevant")
    figure.x_axis(x, ticks(0, 1), "probability given")
    figure.line(x(0), y(0), x(1), y(1), "level s5")
    total = sum(count for _, _, count in bins) or 1
    figure.path([(x(given), y(seen)) for given, seen, _ in bins], "curve s1")
    for given, seen, count in bins:
        title = f"given {given:.3f}, observed {seen:.3f}, {count} pairs"
        figure.circle(x(given), y(seen), 3 + 9 * (count / total) ** 0.5, "dot s1", title)
    return figure.svg()


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _spread(labels: Sequence[tuple[float, str]], distance: float, top: float, bottom: float) -> list[tuple[float, str]]:
    """Positions moved apart so that no two labels overlap."""
    placed: list[tuple[float, str]] = []
    for middle, name in sorted(labels):
        placed.append((max(middle, placed[-1][0] + distance if placed else top), name))
    excess = placed[-1][0] - bottom if placed else 0
    return [(middle - max(excess, 0), name) for middle, name in placed]
