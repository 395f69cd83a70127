"""Inspect a collection, convert it, mine candidates and hard negatives from it, or fuse runs.

prorank data stats stdlib
prorank data convert my-beir-folder --split test --to jsonl --out lists.jsonl
prorank data mine my-beir-folder --split train --first-stage bm25 --negatives 15 --out lists.jsonl
prorank data mine my-beir-folder --split test --first-stage dense --top-k 100 --out candidates.trec
prorank data fuse bm25.trec reranked.trec --out fused.trec
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from prorank.cli._model import positive
from prorank.cli.mine import add_mining_arguments
from prorank.pipeline.checks import folder_writable, target_writable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``prorank data`` and their flags."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    stats = commands.add_parser("stats", help="count documents, queries, judgments", allow_abbrev=False)
    _source(stats)
    stats.add_argument(
        "--format", choices=("table", "jsonl"), help="output format (default: table on a terminal, else jsonl)"
    )
    convert = commands.add_parser("convert", help="write a collection in another format", allow_abbrev=False)
    _source(convert)
    convert.add_argument("--to", required=True, choices=("beir", "trec", "jsonl"), help="format to write")
    convert.add_argument("--out", required=True, metavar="PATH", help="a new folder, or a file for jsonl")
    mine = commands.add_parser("mine", help="mine candidates, or lists with hard negatives", allow_abbrev=False)
    _source(mine)
    add_mining_arguments(mine)
    fuse = commands.add_parser("fuse", help="fuse several runs by reciprocal ranks (k 60)", allow_abbrev=False)
    fuse.add_argument("runs", nargs="+", metavar="RUN", help="TREC runs, plain or .gz; the first decides ties")
    fuse.add_argument("--top-k", type=positive, metavar="N", help="documents per query (default: all)")
    fuse.add_argument("--out", required=True, metavar="FILE", help="TREC run to write")


def run(args: argparse.Namespace) -> int:
    """Dispatch to the action."""
    return {"stats": _stats, "convert": _convert, "mine": _mine, "fuse": _fuse}[args.action](args)


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="BEIR or TREC folder, JSON-lines file, irds:ID, or stdlib")
    parser.add_argument("--split", metavar="NAME", help="which judgments (stats: all by default)")


def _stats(args: argparse.Namespace) -> int:
    from prorank.data.load import load_collection, splits_of

    rows = []
    for split in [args.split] if args.split else splits_of(args.data):
        collection = load_collection(args.data, split)
        rows.append({"name": collection.name, "split": collection.split, **collection.stats()._asdict()})
    if (args.format or ("table" if sys.stdout.isatty() else "jsonl")) == "jsonl":
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    table.add_column(rows[0]["name"], overflow="fold")
    for row in rows:
        table.add_column(row["split"] or "all", justify="right")
    for name in list(rows[0])[2:]:
        table.add_row(name.replace("_", " "), *(_shown(row[name]) for row in rows))
    Console().print(table)
    return 0


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _convert(args: argparse.Namespace) -> int:
    from prorank.data import load_collection
    from prorank.data.convert import check_target, convert

    check_target(Path(args.out), args.to)
    (target_writable if args.to == "jsonl" else folder_writable)("--out", args.out)
    convert(load_collection(args.data, args.split), Path(args.out), args.to)
    return 0


def _mine(args: argparse.Namespace) -> int:
    from prorank.cli.mine import mine
    from prorank.pipeline.candidates import open_collection

    return mine(args, open_collection(args.data, args.split, args.own_documents))


def _fuse(args: argparse.Namespace) -> int:
    from prorank.data.first_stage import fuse
    from prorank.data.trec import read_run, write_run

    if len(args.runs) < 2:
        raise ValueError("RUN: expected at least two runs to fuse")
    target_writable("--out", args.out)
    for path in args.runs:
        if not Path(path).is_file():
            raise ValueError(f"RUN: there is no file {path}")
    write_run(args.out, fuse([read_run(path) for path in args.runs], args.top_k), tag="fused")
    return 0
