"""Run the tests a folder at a time, each in a process of its own, and sum them up.

    python tools/suite.py                   # all of tests/ (make test)
    python tools/suite.py --levels          # tests of scores, at every instruction-set level here (make levels)
    python tools/suite.py -- -x -k rank     # what comes after -- goes to pytest

One process for everything holds PyTorch, OpenVINO and ONNX Runtime with their pools of threads, and a browser's server,
for a quarter of an hour: it has died there by a segmentation fault whose cause nobody found. A folder that dies by a
signal is told by its name, and the others still run. Exit code 0: all passed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parent.parent
SCORES = (
    "tests/invariants/test_invariance.py",
    "tests/parity/test_exports.py",
    "tests/parity/test_native.py",
    "tests/parity/test_reference.py",
)
"""Tests whose results follow from the instructions that are used."""
_COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected|warnings?)")
_NOTHING_COLLECTED = 5  # pytest's exit code, of a folder in which -k finds nothing


class PytestOutcome(NamedTuple):
    """What one process of pytest came to."""

    code: int
    counts: Counter[str]

    @property
    def ended(self) -> str:
        """In words; empty where all passed."""
        if self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        return "" if self.code in (0, _NOTHING_COLLECTED) else f"exit code {self.code}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", action="store_true", help="tests of scores at every level of instructions")
    parser.add_argument("pytest", nargs="*", help="for pytest")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    outcomes = levels(args.pytest) if args.levels else folders(args.pytest)
    return summed_up(outcomes, time.monotonic() - began)


def folders(more: Sequence[str]) -> dict[str, PytestOutcome]:
    """Every folder of tests/ that has tests, with the folders in it."""
    tests = REPO / "tests"
    names = sorted(f"tests/{path.relative_to(tests).parts[0]}" for path in tests.rglob("test_*.py"))
    return {name: ran(name, [name, *more], {}) for name in dict.fromkeys(names)}


def levels(more: Sequence[str]) -> dict[str, PytestOutcome]:
    """The tests of scores, at each level that this machine has."""
    from prorank.backends.processor import LEVELS, level

    here, found = level(), {}
    for one in LEVELS:
        if here is None or here not in [other.name for other in LEVELS[LEVELS.index(one) :]]:
            print(f"{one.name}: skipped, this processor or its environment has {here or 'no known level'}", flush=True)
            continue
        found[one.name] = ran(one.name, [*SCORES, *more], one.environment)
    return found


def ran(name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> PytestOutcome:
    """One process of pytest; its lines are passed on as they come."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", "pytest", *arguments]
    process = subprocess.Popen(
        command,
        cwd=REPO,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line if _COUNTS.search(line) else last
    return PytestOutcome(process.wait(), Counter({kind: int(number) for number, kind in _COUNTS.findall(last)}))


def summed_up(outcomes: Mapping[str, PytestOutcome], seconds: float) -> int:
    """Print a line a process, and one for all, as pytest's own; the exit code."""
    total: Counter[str] = Counter()
    failed = False
    print("== summary")
    for name, outcome in outcomes.items():
        total += outcome.counts
        failed |= bool(outcome.ended)
        print(f"{name}: {said(outcome.counts)}{f' ({outcome.ended})' if outcome.ended else ''}")
    print(f"=== {said(total)} in {seconds:.2f}s ===", flush=True)
    return 1 if failed or not outcomes else 0


def said(counts: Mapping[str, int]) -> str:
    """In pytest's words."""
    return ", ".join(f"{number} {kind}" for kind, number in counts.items()) or "no tests ran"


if __name__ == "__main__":
    sys.exit(main())
