"""``report.html`` of a warmup run: held-out answers, learning curves, the analysis before and after; one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prorank.evaluate.analyze import Analysis
from prorank.evaluate.analyze_report import analysis_sections
from prorank.evaluate.page import Section, render_page
from prorank.files import write_atomic
from prorank.pipeline.curves import learning_curves, run_footer

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
        Section("Learning curves", pictures=learning_curves(log, _CURVES)),
        *(analysis_sections(analyses) if analyses else ()),
        Section("Settings", headers=["setting", "value"], rows=[[k, str(v)] for k, v in record["config"].items()]),
    ]
    write_atomic(path, render_page("Prompt warmup", summary, sections, run_footer(record)))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
