"""Writes the tables of docs/warmup.md from the records; no figure there is typed by hand.

    python benchmarks/warmup_tables.py           # write
    python benchmarks/warmup_tables.py --check   # say whether the file is as the records are

A table stands between `<!-- table NAME -->` and `<!-- end -->`; its record is the last of its kind in results/.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import warmup
import warmup_ablation

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "warmup.md"


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
    tables = {"official": official, "ablation": ablation, "trl": trl}

    def replaced(found: re.Match[str]) -> str:
        return f"<!-- table {found[1]} -->\n\n{tables[found[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->.*?<!-- end -->", replaced, text, flags=re.DOTALL)


def records(name: str) -> list[dict[str, Any]]:
    path = HERE / "results" / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def official() -> str:
    record = [r for r in records("warmup.jsonl") if r["kind"] == "warmup"][-1]
    lines = ["| held out, greedy | before | after | 95 % interval |", "|---|---|---|---|"]
    for name, value in record["after"].items():
        low, high = record["interval95"][name]
        lines.append(f"| {name} | {record['before'][name]:.3f} | {value:.3f} | {low:.3f} to {high:.3f} |")
    lines += [
        "",
        f"{record['model']} on {record['dataset']}: {record['steps']} steps, {record['prompts']} prompts, "
        f"{record['training_seconds'] / 60:.1f} minutes of training on {record['environment']['cores']} cores "
        f"({record['environment']['cpu']}), {record['held_out_queries']} held-out queries; "
        f"commit {record['commit'][:12]}{' with uncommitted changes' if record['dirty'] else ''}.",
    ]
    return "\n".join(lines)


def ablation() -> str:
    rows = {record["variant"]: record for record in records("warmup_ablation.jsonl")}
    return warmup_ablation.table(rows) if rows else "No variant has been recorded yet."


def trl() -> str:
    found = [r for r in records("warmup.jsonl") if r["kind"] == "benchmark"]
    if not found:
        return "Not recorded yet."
    record = found[-1]
    settings, environment = record["settings"], record["environment"]
    return (
        f"{warmup.table(record['sides'])}\n\nTRL {record['trl']}; {4 * settings['queries']} prompts a step, "
        f"{settings['group_size']} completions each, median of {settings['repeats']} steps; "
        f"{record['sides']['ours']['precision']}, {environment['cpu']}, {record['sides']['ours']['threads']} threads."
    )


if __name__ == "__main__":
    sys.exit(main())
