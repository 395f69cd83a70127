"""Rerank documents for a query.

Documents come from a file (.txt with one passage per line, .jsonl, .tsv, .csv, .parquet), standard input (text or JSON
lines), or a TREC run with its corpus. Prints a table on a terminal, else JSON lines.

  prorank rank --query "how do vaccines create immunity" --documents passages.jsonl --top-k 10
  cat passages.txt | prorank rank --query "how do vaccines create immunity"
  prorank rank --run bm25.trec --corpus corpus.jsonl --queries queries.jsonl --format trec > reranked.trec
  prorank rank --server http://127.0.0.1:8080 --query "how do vaccines create immunity" --documents passages.jsonl
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from prorank.cli._explained import explanation_tables, printable
from prorank.cli._model import add_model_arguments, load_reranker, positive

if TYPE_CHECKING:
    from prorank.client import Client
    from prorank.ranking import Ranking, Thresholds
    from prorank.reranker import Reranker
    from prorank.types import Document, RankResult

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank rank``."""
    parser.add_argument("--query", metavar="TEXT", help="the query")
    parser.add_argument("--documents", metavar="FILE", default="-", help="the documents (default: standard input)")
    parser.add_argument("--run", metavar="FILE", help="a TREC run to rerank, instead of --documents")
    parser.add_argument("--corpus", metavar="FILE", help="the run's documents (.jsonl, .tsv, .csv, .parquet)")
    parser.add_argument("--queries", metavar="FILE", help="the run's queries (.jsonl or .tsv), instead of --query")
    parser.add_argument("--top-k", type=positive, metavar="N", help="results per query (default: all)")
    parser.add_argument(
        "--min-score", type=_probability, metavar="P", help="leave out documents below this probability"
    )
    parser.add_argument("--min-margin", type=_finite, metavar="M", help="leave out documents below this margin")
    parser.add_argument(
        "--chunks", action="store_true", help="show the part of each text that its score is about (jsonl: chunk)"
    )
    parser.add_argument(
        "--max-chunks-per-doc", type=positive, metavar="N", help="windows of a document at most, with max_window"
    )
    parser.add_argument("--max-tokens-per-doc", type=positive, metavar="N", help="what lies behind is not read")
    parser.add_argument(
        "--explain", type=positive, nargs="?", const=3, metavar="N",
        help="show what the N (3) best margins owe to each sentence; up to 16 further scores each (jsonl: sentences)",
    )  # fmt: skip
    parser.add_argument(
        "--cascade", choices=("exact", "fast", "faster"), default="exact",
        help="stop documents far from the --top-k (then 10 by default) early; needs a model with read-outs",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("table", "jsonl", "trec"), help="output format (default: table on a terminal, else jsonl)"
    )
    parser.add_argument("--query-id", default="1", metavar="ID", help="the query's id in trec output")
    parser.add_argument("--tag", default="prorank", help="the run's name in trec output")
    parser.add_argument("--no-text", action="store_true", help="omit the documents' texts from jsonl output")
    parser.add_argument(
        "--server",
        metavar="URL",
        help="score on this server (prorank serve) instead; its key comes from PRORANK_API_KEY",
    )
    add_model_arguments(parser)


def _probability(text: str) -> float:
    return float(_checked("a probability from 0 to 1", text, min_score=_number(text)).min_score or 0.0)


def _finite(text: str) -> float:
    return float(_checked("a finite number", text, min_margin=_number(text)).min_margin or 0.0)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _checked(expected: str, text: str, **thresholds: float) -> Thresholds:
    from prorank.ranking import Thresholds

    try:
        return Thresholds.checked(**thresholds)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None


def run(args: argparse.Namespace) -> int:
    """Read first, then load the model: a wrong path is reported at once."""
    form = args.format or ("table" if sys.stdout.isatty() else "jsonl")
    if args.explain and form == "trec":
        raise ValueError("--explain: a trec run has no place for sentences; use --format table or jsonl")
    jobs = list(_jobs(args, form))
    if args.server and args.cascade != "exact":
        raise ValueError("--cascade: a server scores exactly; leave it out, or rank without --server")
    reranker: Reranker | Client = _client(args) if args.server else load_reranker(args)
    local: dict[str, Any] = {} if args.server else {"progress": sys.stderr.isatty(), "cascade": args.cascade}
    for query_id, query, documents in jobs:
        results = reranker.rank(
            query,
            documents,
            top_k=args.top_k,
            instruction=args.instruction,
            return_documents=form == "table" or not args.no_text,
            min_score=args.min_score,
            min_margin=args.min_margin,
            return_chunks=args.chunks,
            max_chunks_per_doc=args.max_chunks_per_doc,
            max_tokens_per_doc=args.max_tokens_per_doc,
            explain=args.explain,
            **local,
        )
        if results.left_out:
            of = f"of {len(documents)} documents" + (f" of query {query_id}" if args.run else "")
            print(f"prorank rank: {results.left_out} {of} are below the threshold and left out", file=sys.stderr)
        if form == "table":
            _print_table(query, results)
        elif form == "trec":
            print(results.to_trec(query_id, args.tag), end="")
        else:
            _print_jsonl(results, query_id if args.run else None, sys.stdout)
    return 0


_LOCAL = (
    "adapter", "template", "backend", "device", "dtype", "max_length", "query_max_length", "long_documents",
    "batch_tokens", "threads", "pair_cache",
)  # fmt: skip


def _client(args: argparse.Namespace) -> Client:
    from prorank.client import Client

    for name in _LOCAL:
        if getattr(args, name) not in (None, "auto"):
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} says how to load a local model: leave it out with --server")
    return Client(args.server, api_key=os.environ.get("PRORANK_API_KEY"), model=args.model)


def _jobs(args: argparse.Namespace, form: str) -> Iterator[tuple[str, str, Sequence[Document]]]:
    from prorank.data.documents import read_documents, read_queries, read_trec_lists

    if args.run:
        if not args.corpus:
            raise ValueError("--run needs --corpus FILE: the documents that the run names")
        if bool(args.queries) == bool(args.query):
            raise ValueError("--run needs either --queries FILE, or --query TEXT for a run of one query")
        queries = read_queries(args.queries) if args.queries else {args.query_id: args.query}
        yield from read_trec_lists(args.run, args.corpus, queries)
        return
    if args.corpus or args.queries:
        raise ValueError("--corpus and --queries belong to --run FILE; with --documents give --query")
    if not args.query or not args.query.strip():
        raise ValueError("--query TEXT is missing or empty")
    if args.documents == "-" and sys.stdin.isatty():
        raise ValueError("no documents: give --documents FILE, or pipe them in, one passage per line")
    if form == "trec":
        _check_query_id(args.query_id)
    yield args.query_id, args.query, read_documents(args.documents, for_trec=form == "trec")


def _check_query_id(query_id: str) -> None:
    from prorank.data.trec import trec_id

    try:
        trec_id(query_id)
    except ValueError as error:
        raise ValueError(f"--query-id: {error}") from None


def _print_jsonl(results: Ranking, query_id: str | None, out: TextIO) -> None:
    for row in results.to_dicts():
        for sentence in row.get("sentences", ()):
            sentence["weight"] = round(sentence["weight"], 6)
        row |= {"margin": round(row["margin"], 6), "probability": round(row["probability"], 6)}
        print(json.dumps(row if query_id is None else {"query_id": query_id, **row}, ensure_ascii=True), file=out)


def _print_table(query: str, results: Sequence[RankResult]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title=escape(query), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("rank", "was", "margin", "probability"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("text", no_wrap=True)
    id_width = min(max((len(result.doc_id) for result in results), default=2), 20)
    room = max(console.width - id_width - 42, 20)
    for rank, result in enumerate(results, 1):
        text = _shortened(result.chunk.text if result.chunk else result.text or "", room)
        table.add_row(
            str(rank),
            str(result.index + 1),
            f"{result.margin:+.2f}",
            f"{result.probability:.3f}",
            escape(_shortened(result.doc_id, 20)),
            escape(text),
        )
    console.print(table)
    for explained in explanation_tables(results):
        console.print(explained)


def _shortened(text: str, width: int) -> str:
    """One printable line of at most ``width`` characters: a passage may hold anything, escape codes too."""
    line = printable(text[: 8 * width])
    return line if len(line) <= width else line[: width - 1] + "\u2026"
