"""Say what there is on this machine and whether it works: versions, processor, engines, cache, models, a self-test.

Exit code 1 if something that is there does not work. What is not installed or not fetched is no fault, and nothing is
fetched. Put the output into a bug report.

prorank doctor
prorank doctor --format jsonl
"""

from __future__ import annotations

import argparse
import json
import sys

__all__ = ["add_arguments", "run"]

_MARKS = {"ok": "ok", "absent": "-", "failed": "FAILED"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank doctor``."""
    parser.add_argument("--format", choices=("text", "jsonl"), default="text", help="output format (default: text)")


def run(args: argparse.Namespace) -> int:
    """Print one line a finding, as it is made; 1 if one failed."""
    from prorank.pipeline.doctor import examine

    failed = []
    for finding in examine():
        if args.format == "jsonl":
            print(json.dumps(finding._asdict()), flush=True)
        else:
            print(f"{finding.part:<10} {_MARKS[finding.state]:<7} {finding.name}: {finding.detail}", flush=True)
        if finding.state == "failed":
            failed.append(f"{finding.part} {finding.name}")
    if failed:
        print(f"prorank doctor: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
