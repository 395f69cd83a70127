"""Compare finished evaluations with paired tests, query by query, without scoring anything again.

prorank compare results/a results/b
prorank compare results/a results/b --measure AP --against a:bm25
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank compare``."""
    parser.add_argument("results", nargs="+", metavar="DIR", help="folders that prorank evaluate wrote")
    parser.add_argument(
        "--measure", default="nDCG@10", metavar="NAME", help="measure to compare (default: %(default)s)"
    )
    parser.add_argument("--against", metavar="SYSTEM", help="compare all systems with this one (default: every pair)")
    parser.add_argument("--systems", nargs="+", metavar="SYSTEM", help="compare only these (default: all)")
    parser.add_argument(
        "--format", choices=("table", "jsonl"), help="output format (default: table on a terminal, else jsonl)"
    )


def run(args: argparse.Namespace) -> int:
    """Print one row a pair."""
    from prorank.evaluate.compare import compare, read_finished
    from prorank.evaluate.report import sentence, shown_p

    folders = [Path(folder) for folder in args.results]
    names = [folder.resolve().name for folder in folders]
    labels = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    systems = [
        system
        for folder, label in zip(folders, labels, strict=True)
        for system in read_finished(folder, prefix=f"{label}:" if len(folders) > 1 else "")
    ]
    if args.systems:
        unknown = set(args.systems) - {system.label for system in systems}
        if unknown:
            known = ", ".join(system.label for system in systems)
            raise ValueError(f"--systems: {', '.join(sorted(unknown))}: there are {known}")
        systems = [system for system in systems if system.label in args.systems]
    found = compare(systems, args.measure, against=args.against)
    if (args.format or ("table" if sys.stdout.isatty() else "jsonl")) == "jsonl":
        for pair in found:
            comparison = pair.tested.comparison
            row = {
                "a": pair.a,
                "b": pair.b,
                "measure": args.measure,
                "mean_a": pair.mean_a.mean,
                "mean_b": pair.mean_b.mean,
                "difference": comparison.difference._asdict(),
                "p": comparison.p,
                "p_holm": pair.tested.p_holm,
                "better": comparison.better,
                "worse": comparison.worse,
                "equal": comparison.equal,
            }
            print(json.dumps(row, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for column in ("a", "b", args.measure, "difference", "interval", "p", "p (Holm)", "better / worse / equal"):
        table.add_column(column, justify="left" if column in ("a", "b") else "right", overflow="fold")
    for pair in found:
        comparison, (mean, low, high) = pair.tested.comparison, pair.tested.comparison.difference
        counts = f"{comparison.better} / {comparison.worse} / {comparison.equal}"
        means = f"{pair.mean_a.mean:.4f} – {pair.mean_b.mean:.4f}"
        cells = [f"{mean:+.4f}", f"[{low:+.4f}, {high:+.4f}]", shown_p(comparison.p), shown_p(pair.tested.p_holm)]
        table.add_row(pair.a, pair.b, means, *cells, counts)
    console = Console()
    console.print(table)
    for pair in found:
        console.print(sentence(pair.a, pair.b, args.measure, pair.tested), soft_wrap=True, highlight=False)
    return 0
