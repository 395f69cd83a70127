"""Look into a collection, convert it, or take candidates and hard negatives from it.

prorank data stats stdlib
prorank data convert my-beir-folder --split test --to jsonl --out lists.jsonl
prorank data mine my-beir-folder --split train --first-stage bm25 --negatives 15 --out lists.jsonl
prorank data mine my-beir-folder --split test --first-stage dense --top-k 100 --out candidates.trec
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prorank.cli._model import positive

if TYPE_CHECKING:
    from prorank.data import Collection

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``prorank data`` and their flags."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    stats = commands.add_parser("stats", help="count documents, queries, judgments", allow_abbrev=False)
    _source(stats)
    stats.add_argument("--format", choices=("table", "jsonl"), help="default: table on a terminal, else jsonl")
    convert = commands.add_parser("convert", help="write a collection in another form", allow_abbrev=False)
    _source(convert)
    convert.add_argument("--to", required=True, choices=("beir", "trec", "jsonl"), help="the form to write")
    convert.add_argument("--out", required=True, metavar="PATH", help="a new folder, or a file for jsonl")
    mine = commands.add_parser("mine", help="candidates, or lists with hard negatives", allow_abbrev=False)
    _source(mine)
    mine.add_argument("--first-stage", default="bm25", metavar="NAME", help="as in evaluate (default: %(default)s)")
    mine.add_argument("--top-k", type=positive, default=100, metavar="N", help="candidates (default: %(default)s)")
    mine.add_argument("--out", required=True, metavar="FILE", help="FILE.trec: all candidates; FILE.jsonl: lists")
    mine.add_argument("--negatives", type=positive, default=15, metavar="N", help="for lists (default: %(default)s)")
    mine.add_argument("--rank-from", type=positive, default=1, metavar="N", help="first rank used (default: 1)")
    mine.add_argument("--absolute-margin", type=float, metavar="X", help="keep scores <= the positive's - X")
    mine.add_argument("--relative-margin", type=float, metavar="X", help="keep scores <= (1 - X) of the positive's")
    mine.add_argument("--pick", choices=("top", "random"), default="top", help="which of them (default: %(default)s)")
    mine.add_argument("--seed", type=int, default=0, metavar="N", help="of random (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Dispatch to the action."""
    return {"stats": _stats, "convert": _convert, "mine": _mine}[args.action](args)


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="BEIR or TREC folder, JSON-lines file, irds:ID, or stdlib")
    parser.add_argument("--split", metavar="NAME", help="which judgments (stats: all of them by default)")


def _stats(args: argparse.Namespace) -> int:
    from prorank.data.collection import load_collection, splits_of

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
    from prorank.data.convert import convert

    convert(load_collection(args.data, args.split), Path(args.out), args.to)
    return 0


def _mine(args: argparse.Namespace) -> int:
    from prorank.data import first_stage, load_collection, write_run
    from prorank.data.jsonl import write_jsonl
    from prorank.data.negatives import mine_negatives

    out = Path(args.out)
    kind = out.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in ("trec", "jsonl"):
        raise ValueError(f"--out: {args.out} must end in .trec (candidates) or .jsonl (lists), plain or with .gz")
    collection = load_collection(args.data, args.split)
    candidates = first_stage(args.first_stage, collection, args.top_k)
    if kind == "trec":
        write_run(out, candidates, args.first_stage.replace(":", "-"))
        return 0
    mined = mine_negatives(
        collection,
        candidates,
        negatives=args.negatives,
        rank_from=args.rank_from,
        rank_to=args.top_k,
        absolute_margin=args.absolute_margin,
        relative_margin=args.relative_margin,
        pick=args.pick,
        seed=args.seed,
    )
    judged = {
        query_id: {**_relevant(collection, query_id), **dict.fromkeys(negatives, 0)}
        for query_id, negatives in mined.items()
    }
    queries = {query_id: collection.queries[query_id] for query_id in judged}
    write_jsonl(replace(collection, queries=queries, qrels=judged, candidates=None), out)
    print(f"{len(judged)} queries, {sum(map(len, mined.values()))} negatives", file=sys.stderr)
    return 0


def _relevant(collection: Collection, query_id: str) -> dict[str, int]:
    judgments = collection.qrels[query_id]
    return {doc_id: grade for doc_id, grade in judgments.items() if grade >= 1 and doc_id in collection.documents}
