"""Sides of a benchmark: a process each, and all of them take turns at the same pairs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

Jobs = list[tuple[str, list[str]]]
"""Queries, each with its documents."""


class Side:
    """A running `scoring_side.py`."""

    def __init__(self, name: str, python: str, options: dict[str, Any]) -> None:
        self.name = name
        self.results: list[dict[str, Any]] = []
        # -P: this folder is no place to import from; its collections.py would hide Python's own.
        command = [python, "-P", str(HERE / "scoring_side.py"), json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self._answer()

    def run(self, jobs: Jobs) -> float:
        """Score the jobs; pairs a second."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(jobs) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        answer["pairs_per_second"] = sum(len(documents) for _, documents in jobs) / answer["seconds"]
        self.results.append(answer)
        return float(answer["pairs_per_second"])

    def row(self) -> dict[str, Any]:
        speeds = [result["pairs_per_second"] for result in self.results]
        return {
            "pairs_per_second": round(statistics.median(speeds), 3),
            "repeats": [round(speed, 3) for speed in speeds],
            "peak_mib": self.results[-1]["peak_mib"],
            **self.facts,
        }

    def scores(self) -> list[float]:
        return [score for result in self.results for one in result["scores"] for score in one]

    def stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the process ended with exit code {self._process.wait()}")
        return dict(json.loads(line))


def ended(result: dict[str, Any], append: Path | None) -> int:
    """Keep the record where one is wanted, print it as the last line; the exit code says whether all was reached."""
    if append is not None:
        from prorank.evaluate.record import append_record

        append_record(append, "benchmark", result)
    print(json.dumps(result))
    return 0 if all(result["verdict"].values()) else 1


def take_turns(plan: dict[str, tuple[str, dict[str, Any]]], repeats: list[Jobs]) -> list[Side]:
    """Start every side, let them score each repeat one after the other, stop them; they hold what was measured."""
    running: list[Side] = []
    try:
        for name, (python, options) in plan.items():
            print(f"loading {name}", file=sys.stderr, flush=True)
            running.append(Side(name, python, options))
        for number, jobs in enumerate(repeats, 1):
            for side in running:
                print(f"repeat {number}: {side.name}: {side.run(jobs):.2f} pairs/s", file=sys.stderr, flush=True)
    finally:
        for side in running:
            side.stop()
    return running
