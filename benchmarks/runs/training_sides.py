"""What the benchmarks of training have in common: flags, a process for each side, and its memory."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs.collections import DATA

Rows = dict[str, dict[str, Any]]
"""Side -> what its process found."""


def parser_of(doc: str, sides: Sequence[str], *, queries: int, queries_help: str) -> argparse.ArgumentParser:
    """The flags that every such benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", default=str(DATA / "msmarco-sample"))
    parser.add_argument("--queries", type=int, default=queries, help=f"{queries_help} (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="steps that are counted, after one that is not (default: %(default)s)"
    )
    parser.add_argument("--sides", nargs="+", default=list(sides), choices=sides)
    parser.add_argument("--append", metavar="FILE", help="also append the record to this JSON-lines file")
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    return parser


def each_side(module: str, sides: Sequence[str]) -> Rows:
    """Run this very command once a side; the last line that a process prints is its answer."""
    rows = {}
    for side in sides:
        print(f"== {side}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", module, *sys.argv[1:], "--side", side]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows[side] = json.loads(found.splitlines()[-1])
    return rows


def memory(field: str) -> float:
    """MiB, from Linux's account of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {field}: this needs Linux")


def reset_peak() -> float:
    """Forget the peak of loading, and say what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")
