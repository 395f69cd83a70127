"""Writes the tables of docs/evaluation.md from docstrings and records; no figure there is typed by hand.

A table of results shows the last record of its kind in results/.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from benchmarks.tables.writer import DOCS, Record, made, records, table

PAGE = DOCS / "evaluation.md"

REFERENCES = {
    ("nfcorpus", "test"): (0.3177, 0.3246),
    ("scifact", "test"): (0.6762, 0.6660),
    ("dl19", "test"): (0.5058, 0.6402),
    ("cosqa", "dev"): (0.3167, 0.5372),
}
"""(collection, split) -> nDCG@10 of BM25 and of MiniLM, as published or given with the collections."""


def measures() -> str:
    from prorank.evaluate.metrics import DEFINITIONS

    return table(["measure", "of one query"], [[f"`{name}`", words] for name, words in DEFINITIONS.items()])


def statistics() -> str:
    from prorank.evaluate.significance import bootstrap_interval, holm, randomisation_p

    shown = {"interval": bootstrap_interval, "p": randomisation_p, "p (Holm)": holm}
    return table(["column", "definition"], [[name, _first(function)] for name, function in shown.items()])


def baselines() -> str:
    from prorank.evaluate.baselines import BASELINES

    return table(["`--baseline`", "what it is"], [[f"`{name}`", words] for name, words in BASELINES.items()])


def definitions() -> str:
    from prorank.evaluate.analyze_report import definitions

    return table(["measure", "definition, unit, source"], [[f"`{n}`", words] for n, words in definitions().items()])


def analysis() -> str:
    """The models of the last run recorded: lines that share a sample, a collection and a commit."""
    lines = records("analyze.jsonl")
    if not lines:
        return "Not recorded yet."
    last = lines[-1]
    same = [r for r in lines if all(r[key] == last[key] for key in ("sample", "dataset", "commit"))]
    rows = []
    for name in last["understanding"]:
        cells = [r["understanding"][name] for r in same]
        rows.append([f"`{name}`", *(f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in cells)])
    rows += [[f"`{name}`", *(f"{r['expressiveness'][name]:.4g}" for r in same)] for name in last["expressiveness"]]
    answers = []
    for record in same:
        shown = [f"`{found['text']}` ({found['count']})" for found in record["malformed"][:3]]
        answers.append(f"{record['model']}: {', '.join(shown) or 'none'}")
    return (
        f"{table(['measure', *(r['model'] for r in same)], rows)}\n\n"
        f"Most frequent malformed answers: {'; '.join(answers)}.\n\n"
        f"{last['dataset']['name']} {last['dataset']['split']}, {last['prompts']} prompts, {last['candidates']} "
        f"candidates, {last['description']['backend']}, {made(last)}."
    )


def references() -> str:
    found: dict[tuple[str, str], Record] = {}
    for record in records("evaluate.jsonl"):
        found[record["dataset"]["name"], record["dataset"]["split"]] = record
    rows, origin = [], ""
    for key, expected in REFERENCES.items():
        record = found.get(key)
        if record is None:
            continue
        systems = {system["name"]: system["measures"]["nDCG@10"]["mean"] for system in record["systems"]}
        measured = [systems["bm25"], systems["all-MiniLM-L6-v2"]]
        cells = [f"{value:.4f} ({given:.4f})" for value, given in zip(measured, expected, strict=True)]
        rows.append([" ".join(key), str(record["dataset"]["queries"]), *cells])
        origin = made(record)
    if not rows:
        return "Not recorded yet."
    heads = ["collection", "queries", "BM25 nDCG@10 (reference)", "MiniLM nDCG@10 (reference)"]
    return f"{table(heads, rows)}\n\n{origin[:1].upper()}{origin[1:]}."


def _first(function: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(function) or "").split("\n\nArgs")[0].split()).replace("`", "")


PAGES = {
    PAGE: {
        "measures": measures,
        "statistics": statistics,
        "baselines": baselines,
        "analyze": definitions,
        "analysis": analysis,
        "references": references,
    }
}
