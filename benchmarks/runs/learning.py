"""Learning curves of training runs, out of the runs' own logs, as records for the picture.

    python -m benchmarks.runs.learning runs/mine/warmup runs/mine/refine --append benchmarks/results/learning.jsonl

A run's folder holds `log.jsonl` and `records.jsonl`; every held-out evaluation becomes a point. Prints one JSON line a
run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

KEPT = {
    "warmup": ("format_success", "balanced_accuracy_random", "balanced_accuracy_hard", "auc_hard"),
    "refine": ("nDCG@10",),
}
"""Stage -> the measures that are kept of each evaluation."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIR", help="folders of finished runs")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the records to this file")
    args = parser.parse_args()
    for folder in args.runs:
        if not (folder / "records.jsonl").is_file() or not (folder / "log.jsonl").is_file():
            parser.error(f"{folder}: expected a finished run with log.jsonl and records.jsonl")
    from prorank.evaluate.record import append_line

    for folder in args.runs:
        record = curve(folder)
        if args.append is not None:
            append_line(args.append, record)
        print(json.dumps({"stage": record["stage"], "points": len(record["points"])}))
    return 0


def curve(folder: Path) -> dict[str, Any]:
    """A run's record with its held-out points; the settings stay those that the run wrote."""
    record = json.loads((folder / "records.jsonl").read_text("utf-8").splitlines()[-1])
    stage = record["kind"]
    points = []
    for line in map(json.loads, (folder / "log.jsonl").read_text("utf-8").splitlines()):
        if line.get("group") == "held_out":
            points.append(
                {"step": line["step"], **{name: round(line[name], 4) for name in KEPT[stage] if name in line}}
            )
    kept = ("time", "commit", "dirty", "environment", "model", "steps", "prompts", "documents", "training_seconds",
            "held_out_queries", "first_stage")  # fmt: skip
    data = record.get("dataset") or [one["name"] for one in record.get("datasets", [])]
    return {"kind": "learning", "stage": stage, "data": data, **{k: record[k] for k in kept if k in record},
            "points": points}  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
