"""Which parts of warmup matter: one run each with one thing changed, on the same prompts and number of steps.

    python -m benchmarks.runs.warmup_ablation --data data/msmarco-sample --out runs/warmup-ablation

Each variant is `prorank warmup` with the CPU recipe, shortened, and the flags below; a finished variant is not run
again, so that the script may be stopped and started; --report takes those that have finished and trains nothing.
Prints a table of held-out measures with 95 % intervals, and one JSON line last; --append keeps a record a variant.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.runs.collections import DATA

REPO = Path(__file__).resolve().parents[2]
RECIPE = REPO / "recipes" / "warmup" / "smollm2-135m-cpu.toml"
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "supervised": {"objective": "supervised"},
    "no prior correction": {"prior": "none"},
    "relevance reward only": {"format_weight": 0},
    "group size 8": {"group_size": 8},
    "exact gradient": {"objective": "exact"},
    "rewards summed, then normalised": {"normalise": "sum"},
    "no margin cost": {"margin_cost": 0},
    "format reward only": {"relevance_weight": 0},
    "KL 0.04": {"beta": 0.04},
    "learning rate 3e-4": {"learning_rate": 3e-4},
    "8 queries a step, a quarter of the steps": {"queries_per_step": 8, "steps": 0.25, "warmup_steps": 2},
}
COLUMNS = (
    "format_success",
    "answers_one",
    "balanced_accuracy_random",
    "auc_random",
    "balanced_accuracy_hard",
    "auc_hard",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA / "msmarco-sample")
    parser.add_argument("--out", type=Path, default=Path("runs/warmup-ablation"))
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of each variant (default: 40)")
    parser.add_argument("--document-tokens", type=int, default=64, help="shorter than the recipe's (default: 64)")
    parser.add_argument("--held-out", type=int, default=64, help="held-out queries (default: 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="these variants (default: all)")
    parser.add_argument("--report", action="store_true", help="train nothing, take what has finished")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the records to this JSON-lines file")
    args = parser.parse_args()
    rows = {name: finished(args.out / folder(name)) for name in args.only or VARIANTS}
    if not args.report:
        rows = {name: row or train(name, args) for name, row in rows.items()}
    rows = {name: row for name, row in rows.items() if row is not None}
    print(table(rows))
    if args.append:
        with args.append.open("a", encoding="utf-8") as file:
            for name, row in rows.items():
                file.write(json.dumps({"variant": name, "changes": VARIANTS[name], **row}) + "\n")
    found = {name: {key: row["after"][key] for key in COLUMNS} for name, row in rows.items()}
    print(json.dumps({"benchmark": "warmup_ablation", "steps": args.steps, "seed": args.seed, "variants": found}))
    return 0


def folder(name: str) -> str:
    return name.replace(",", "").replace(" ", "-").lower()


def finished(out: Path) -> dict[str, Any] | None:
    """The record of a variant that has ended, or None."""
    path = out / "records.jsonl"
    return json.loads(path.read_text().splitlines()[-1]) if path.exists() else None


def train(name: str, args: argparse.Namespace) -> dict[str, Any]:
    settings = {"steps": 1.0, "seed": args.seed} | VARIANTS[name]
    settings["steps"] = round(settings["steps"] * args.steps)
    settings |= {"eval_every": settings["steps"], "save_every": settings["steps"]}
    settings |= {"document_tokens": args.document_tokens, "held_out_queries": args.held_out}
    out = args.out / folder(name)
    command = [sys.executable, "-m", "prorank.cli.main", "warmup", "--config", str(RECIPE)]
    command += ["--data", str(args.data), "--out", str(out), "--analysis-pairs", "0"]
    for key, value in settings.items():
        command += [f"--warmup.{key}", str(value)]
    print(f"== {name}", file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)
    record = finished(out)
    if record is None:
        raise SystemExit(f"{name}: ended without a record in {out}")
    return record


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A line a variant; every measure with its interval."""
    lines = ["| variant | steps | prompts | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (3 + len(COLUMNS))]
    for name, row in rows.items():
        cells = []
        for key in COLUMNS:
            low, high = row["interval95"][key]
            cells.append(f"{row['after'][key]:.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {name} | {row['steps']} | {row['prompts']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
