"""What a run of training reports: ``report.html`` of warmup and of refine, ``report.md`` of train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prorank.evaluate.analyze import Analysis
from prorank.evaluate.analyze_report import analysis_sections
from prorank.evaluate.page import Section, render_page
from prorank.evaluate.results import Evaluation
from prorank.files import write_atomic
from prorank.pipeline.curves import learning_curves, run_footer

__all__ = ["training_report", "write_refine_report", "write_warmup_report"]

_WARMUP_CURVES = (
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
_REFINE_CURVES = (
    ("Loss", "train", ("loss",)),
    ("Lists whose best document has the highest margin", "train", ("best_first",)),
    ("Margin of relevant documents above the others", "train", ("gap",)),
    ("Mean margin", "train", ("margin",)),
    ("Rivals from the first stage", "train", ("hard",)),
    ("Gradient norm", "train", ("gradient_norm",)),
)


def write_warmup_report(
    path: Path,
    log: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    analyses: Sequence[Analysis] = (),
) -> None:
    """Write the page of a warmup: held-out answers, learning curves, the analysis before and after.

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
        Section("Learning curves", pictures=learning_curves(log, _WARMUP_CURVES)),
        *(analysis_sections(analyses) if analyses else ()),
        Section("Settings", headers=["setting", "value"], rows=[[k, str(v)] for k, v in record["config"].items()]),
    ]
    write_atomic(path, render_page("Prompt warmup", summary, sections, run_footer(record)))


def write_refine_report(path: Path, log: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> None:
    """Write the page of a refine run: held-out nDCG@10 and learning curves.

    Args:
        log: lines of ``log.jsonl``.
        record: the run's record, as written.
    """
    names = ", ".join(d["name"] for d in record["datasets"])
    summary = [
        f"{record['model']} on {names}: {record['steps']} steps, {record['documents']} documents, "
        f"{record['training_seconds'] / 60:.1f} minutes of training, {record['documents_per_second']} documents/s, "
        f"{record['stopped']}; best at step {record['best_step']}.",
        "Held-out queries were not trained on; they chose the best step, so a test set is needed to judge it.",
    ]
    stages = ("first_stage", "before", "after")
    rows = [
        [name, *(f"{record[stage][name]:.4f}" if name in record[stage] else "–" for stage in stages)]
        for name in record["after"]
    ]
    sections = [Section("Held out", "", ["measure", "first stage", "before", "after"], rows)]
    measured = sorted({key for line in log if line["group"] == "held_out" for key in line} - {"step", "group"})
    curves = [*_REFINE_CURVES, *((f"Held out: {name}", "held_out", (name,)) for name in measured)]
    sections.append(Section("Learning curves", pictures=learning_curves(log, curves)))
    settings = [[k, str(v)] for k, v in record["config"].items()]
    sections.append(Section("Settings", headers=["setting", "value"], rows=settings))
    write_atomic(path, render_page("Fine-grained score learning", summary, sections, run_footer(record)))


def training_report(results: Sequence[Evaluation], instructions: Sequence[str | None], model: Path) -> str:
    """The tables of the tests, and in plain words whether training helped; Markdown.

    Args:
        instructions: that each evaluation was made with.
        model: the reranker that came out.
    """
    lines = ["# Training report", ""]
    for result, instruction in zip(results, instructions, strict=True):
        measure = next(iter(result.rows[0].intervals))
        lines += [
            f"## {result.collection.name} ({len(result.collection.qrels)} test queries, top {result.top_k} of "
            f"{result.first_stage})",
            "",
            f"| system | {measure} | 95% interval | difference to {result.first_stage} | p (Holm) |",
            "|---|---|---|---|---|",
        ]
        for row in result.rows:
            interval = row.intervals[measure]
            tested = row.versus.get(result.first_stage, {}).get(measure)
            versus = f"{tested.comparison.difference.mean:+.4f} | {tested.p_holm:.4f}" if tested else " | "
            lines.append(f"| {row.name} | {interval.mean:.4f} | {interval.low:.4f} to {interval.high:.4f} | {versus} |")
        lines += ["", *([f'Instruction: "{instruction}"', ""] if instruction else []), _sentence(result, measure), ""]
    lines.append(f"The reranker: `{model}`.")
    return "\n".join(lines) + "\n"


def _sentence(result: Evaluation, measure: str) -> str:
    """Whether training helped, in words, by the paired test against the first stage at the 5 % level."""
    refined = next(row for row in result.rows if row.name == "refined")
    tested = refined.versus[result.first_stage][measure]
    difference, queries = tested.comparison.difference, len(result.collection.qrels)
    size = f"{difference.mean:+.4f} {measure} (95% interval {difference.low:+.4f} to {difference.high:+.4f}, "
    size += f"p = {tested.p_holm:.4f}, {queries} queries)"
    if tested.p_holm < 0.05:
        helped = "helped" if difference.mean > 0 else "made the order worse"
        return f"Training {helped}: the refined reranker differs from {result.first_stage} by {size}."
    return (
        f"It is not shown that training helped: the refined reranker differs from {result.first_stage} by {size}; "
        "that may be chance. More queries, or longer training, may tell."
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
