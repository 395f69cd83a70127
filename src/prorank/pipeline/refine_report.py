"""``report.html`` of a refine run: held-out nDCG@10 and learning curves; one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prorank.evaluate.page import Section, render_page
from prorank.files import write_atomic
from prorank.pipeline.curves import learning_curves, run_footer

__all__ = ["write_report"]

_CURVES = (
    ("Loss", "train", ("loss",)),
    ("Lists whose best document has the highest margin", "train", ("best_first",)),
    ("Margin of relevant documents above the others", "train", ("gap",)),
    ("Mean margin", "train", ("margin",)),
    ("Rivals from the first stage", "train", ("hard",)),
    ("Gradient norm", "train", ("gradient_norm",)),
)


def write_report(path: Path, log: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> None:
    """Write the page.

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
    curves = [*_CURVES, *((f"Held out: {name}", "held_out", (name,)) for name in measured)]
    sections.append(Section("Learning curves", pictures=learning_curves(log, curves)))
    settings = [[k, str(v)] for k, v in record["config"].items()]
    sections.append(Section("Settings", headers=["setting", "value"], rows=settings))
    write_atomic(path, render_page("Fine-grained score learning", summary, sections, run_footer(record)))
