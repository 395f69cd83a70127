"""Writes the tables of docs/warmup.md from the records; no figure there is typed by hand.

A table's record is the last of its kind in results/.
"""

from __future__ import annotations

from benchmarks.runs import warmup, warmup_ablation
from benchmarks.tables.writer import DOCS, records

PAGE = DOCS / "warmup.md"


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
        f"{warmup.table(record['sides'])}\n\nTRL {record['trl']}; {4 * settings['queries']} prompts per step, "
        f"{settings['group_size']} completions each, median of {settings['repeats']} steps; "
        f"{record['sides']['ours']['precision']}, {environment['cpu']}, {record['sides']['ours']['threads']} threads."
    )


PAGES = {PAGE: {"official": official, "ablation": ablation, "trl": trl}}
