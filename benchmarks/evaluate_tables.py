"""Writes the tables of docs/evaluation.md from docstrings and records; no figure there is typed by hand.

    python benchmarks/evaluate_tables.py           # write
    python benchmarks/evaluate_tables.py --check   # say whether the page is as they are

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "evaluation.md"

REFERENCES = {
    ("nfcorpus", "test"): (0.3177, 0.3246),
    ("scifact", "test"): (0.6762, 0.6660),
    ("dl19", "test"): (0.5058, 0.6402),
    ("cosqa", "dev"): (0.3167, 0.5372),
}
"""(collection, split) -> nDCG@10 of BM25 and of MiniLM, as published or given with the collections."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page is out of date")
    args = parser.parse_args()
    before = PAGE.read_text("utf-8")
    after = filled(before)
    if args.check:
        print(f"{PAGE.name}: {'as the records are' if before == after else 'out of date: make docs'}")
        return int(before != after)
    PAGE.write_text(after, "utf-8")
    return 0


def filled(text: str) -> str:
    """The page with every table replaced."""
    tables: dict[str, Callable[[], str]] = {
        "measures": measures,
        "statistics": statistics,
        "baselines": baselines,
        "analyze": definitions,
        "analysis": analysis,
        "references": references,
    }

    def replaced(found: re.Match[str]) -> str:
        return f"<!-- table {found[1]} -->\n\n{tables[found[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->.*?<!-- end -->", replaced, text, flags=re.DOTALL)


def measures() -> str:
    from prorank.evaluate.metrics import DEFINITIONS

    return _table(["measure", "of one query"], [[f"`{name}`", words] for name, words in DEFINITIONS.items()])


def statistics() -> str:
    from prorank.evaluate.significance import bootstrap_interval, holm, randomisation_p

    shown = {"interval": bootstrap_interval, "p": randomisation_p, "p (Holm)": holm}
    return _table(["column", "definition"], [[name, _first(function)] for name, function in shown.items()])


def baselines() -> str:
    from prorank.evaluate.baselines import BASELINES

    return _table(["`--baseline`", "what it is"], [[f"`{name}`", words] for name, words in BASELINES.items()])


def definitions() -> str:
    from prorank.evaluate.analyze_report import definitions

    return _table(["measure", "definition, unit, source"], [[f"`{n}`", words] for n, words in definitions().items()])


def analysis() -> str:
    """The models of the last run recorded: lines that share a sample, a collection and a commit."""
    records = _records("analyze.jsonl")
    if not records:
        return "Not recorded yet."
    last = records[-1]
    same = [r for r in records if all(r[key] == last[key] for key in ("sample", "dataset", "commit"))]
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
        f"{_table(['measure', *(r['model'] for r in same)], rows)}\n\n"
        f"Most frequent malformed answers: {'; '.join(answers)}.\n\n"
        f"{last['dataset']['name']} {last['dataset']['split']}, {last['prompts']} prompts, {last['candidates']} "
        f"candidates, {last['description']['backend']}, {_made(last)}."
    )


def references() -> str:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record in _records("evaluate.jsonl"):
        found[record["dataset"]["name"], record["dataset"]["split"]] = record
    rows, made = [], ""
    for key, expected in REFERENCES.items():
        record = found.get(key)
        if record is None:
            continue
        systems = {system["name"]: system["measures"]["nDCG@10"]["mean"] for system in record["systems"]}
        measured = [systems["bm25"], systems["all-MiniLM-L6-v2"]]
        cells = [f"{value:.4f} ({given:.4f})" for value, given in zip(measured, expected, strict=True)]
        rows.append([" ".join(key), str(record["dataset"]["queries"]), *cells])
        made = _made(record)
    if not rows:
        return "Not recorded yet."
    heads = ["collection", "queries", "BM25 nDCG@10 (reference)", "MiniLM nDCG@10 (reference)"]
    return f"{_table(heads, rows)}\n\n{made[:1].upper()}{made[1:]}."


def _records(name: str) -> list[dict[str, Any]]:
    path = HERE / "results" / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _made(record: dict[str, Any]) -> str:
    environment = record["environment"]
    dirty = " with uncommitted changes" if record["dirty"] else ""
    return f"commit {record['commit'][:12]}{dirty}, {environment['cpu']}, {environment['cores']} cores"


def _first(function: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(function) or "").split("\n\nArgs")[0].split()).replace("`", "")


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
