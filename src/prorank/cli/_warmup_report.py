"""``report.html`` of a warmup run: held-out answers, learning curves, the analysis before and after; one file."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prorank.evaluate.analyze import Analysis
from prorank.evaluate.analyze_report import analysis_sections
from prorank.evaluate.page import Section, render_page
from prorank.files import write_atomic

__all__ = ["write_report"]

_CURVES = (
    ("Rewards (sampled)", "train", ("reward_format", "reward_relevance")),
    ("Accuracy and format success (sampled)", "train", ("format_success", "accuracy")),
    ("Share of greedy answers that are 1", "train", ("answers_one",)),
    ("Mean margin, gap between positives and negatives, prior taken out", "train", ("margin", "margin_gap", "prior")),
    ("Entropy of the first token, nats", "train", ("entropy",)),
    ("Share of prompts without reward variance", "train", ("zero_variance",)),
    ("KL to the base at the first token, nats", "held_out", ("kl",)),
    ("Gradient norm", "train", ("gradient_norm",)),
    ("Held out: format and balanced accuracy", "held_out",
     ("format_success", "balanced_accuracy_random", "balanced_accuracy_hard")),
    ("Held out: AUC of the margin", "held_out", ("auc_random", "auc_hard")),
)  # fmt: skip


def write_report(
    path: Path,
    log: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    analyses: Sequence[Analysis] = (),
) -> None:
    """Write the page.

    Args:
        log: lines of ``log.jsonl``.
        record: the run's record, as written.
        analyses: of the base and of the result.
    """
    summary = [
        f"{record['model']} on {record['dataset']}: {record['steps']} steps, {record['prompts']} prompts, "
        f"{record['training_seconds'] / 60:.1f} minutes of training, {record['prompts_per_second']} prompts/s, "
        f"{record['stopped']}.",
        f"Held-out format success {record['before']['format_success']:.1%} before, "
        f"{record['after']['format_success']:.1%} after.",
    ]
    sections = [
        Section(
            "Held out, greedy",
            f"{record['held_out_queries']} queries that were not trained on; 95% bootstrap intervals over queries.",
            ["measure", "before", "after", "interval"],
            [
                [
                    name,
                    _number(record["before"].get(name)),
                    _number(value),
                    "{} to {}".format(*map(_number, record["interval95"].get(name, (None, None)))),
                ]
                for name, value in record["after"].items()
            ],
        ),
        Section("Learning curves", pictures=_pictures(log)),
        *(analysis_sections(analyses) if analyses else ()),
        Section("Settings", headers=["setting", "value"], rows=[[k, str(v)] for k, v in record["config"].items()]),
    ]
    environment = record["environment"]
    dirty = " with uncommitted changes" if record["dirty"] else ""
    footer = (
        f"{record['time']}; commit {str(record['commit'])[:12]}{dirty}; {environment['cpu']}, "
        f"{environment['cores']} cores"
    )
    write_atomic(path, render_page("Prompt warmup", summary, sections, footer))


def _pictures(log: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    pictures = []
    for title, group, names in _CURVES:
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


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
