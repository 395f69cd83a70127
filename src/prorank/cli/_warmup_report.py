"""``report.html`` of a warmup run: learning curves as inline SVG, answers before and after; one file, no scripts."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prorank.files import write_atomic

__all__ = ["write_report"]

_CURVES = (
    ("Rewards (sampled)", "train", ("reward_format", "reward_relevance")),
    ("Accuracy and format success (sampled)", "train", ("format_success", "accuracy")),
    ("Share of greedy answers that are 1", "train", ("answers_one",)),
    ("Mean margin and gap between positives and negatives", "train", ("margin", "margin_gap", "prior")),
    ("Entropy of the first token, nats", "train", ("entropy",)),
    ("Share of prompts without reward variance", "train", ("zero_variance",)),
    ("KL to the reference, nats a token", "train", ("kl",)),
    ("Gradient norm", "train", ("gradient_norm",)),
    ("Held out: format and balanced accuracy", "held_out",
     ("format_success", "balanced_accuracy_random", "balanced_accuracy_hard")),
    ("Held out: AUC of the margin", "held_out", ("auc_random", "auc_hard")),
)  # fmt: skip
_COLOURS = ("#1f5fa8", "#b4431f", "#3b7d3b")
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.4rem}h2{font-size:1rem;margin:.2rem 0}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:1.2rem}
table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:right}
td:first-child,th:first-child{text-align:left}pre{overflow:auto;background:#f4f4f4;padding:.8rem}
svg{width:100%;height:auto}"""


def write_report(path: Path, log: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        log: lines of ``log.jsonl``.
        record: the run's record payload.
    """
    curves = []
    for title, group, names in _CURVES:
        series = [
            (
                name,
                [
                    (line["step"], line[name])
                    for line in log
                    if line.get("group") == group and line.get(name) is not None
                ],
            )
            for name in names
        ]
        series = [(name, points) for name, points in series if points and any(value for _, value in points)]
        if series:
            curves.append(f"<div><h2>{html.escape(title)}</h2>{_chart(series)}</div>")
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{record['before'].get(name, float('nan')):.3f}</td><td>{value:.3f}</td>"
        f"<td>{record['interval95'][name][0]:.3f} to {record['interval95'][name][1]:.3f}</td></tr>"
        for name, value in record["after"].items()
    )
    head = (
        f"{record['model']} on {record['dataset']}: {record['steps']} steps, {record['prompts']} prompts, "
        f"{record['training_seconds'] / 60:.1f} minutes of training, {record['prompts_per_second']} prompts/s, "
        f"{record['stopped']}; {record['held_out_queries']} held-out queries."
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>prorank warmup</title><style>{_STYLE}</style><h1>Prompt warmup</h1><p>{html.escape(head)}</p>"
        "<table><tr><th>held out, greedy</th><th>before</th><th>after</th>"
        "<th>95 % interval (bootstrap over queries)</th></tr>"
        f'{rows}</table><div class="grid">{"".join(curves)}</div><h2>Record</h2>'
        f"<pre>{html.escape(json.dumps(dict(record), indent=1))}</pre></html>\n"
    )
    write_atomic(path, page)


def _chart(series: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> str:
    steps = [step for _, points in series for step, _ in points]
    values = [value for _, points in series for _, value in points]
    low, high = min(0.0, *values), max(values)
    high = high if high > low else low + 1
    left, top, width, height = 44, 8, 300, 150
    span = max(max(steps) - min(steps), 1)

    def place(step: int, value: float) -> str:
        x = left + width * (step - min(steps)) / span
        return f"{x:.1f},{top + height * (1 - (value - low) / (high - low)):.1f}"

    parts = [f'<svg viewBox="0 0 {left + width + 8} {top + height + 34}" role="img">']
    for share in (0.0, 0.5, 1.0):
        y, value = top + height * (1 - share), low + share * (high - low)
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 4}" y="{y + 4:.1f}" font-size="11" text-anchor="end">{value:.3g}</text>')
    for index, (name, points) in enumerate(series):
        colour = _COLOURS[index % len(_COLOURS)]
        line = " ".join(place(step, value) for step, value in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
        x = left + index * 115
        parts.append(f'<text x="{x}" y="{top + height + 30}" font-size="11" fill="{colour}">{html.escape(name)}</text>')
    parts.append(f'<text x="{left}" y="{top + height + 15}" font-size="11">{min(steps)}</text>')
    parts.append(
        f'<text x="{left + width}" y="{top + height + 15}" font-size="11" text-anchor="end">{max(steps)}</text>'
    )
    return "".join(parts) + "</svg>"
