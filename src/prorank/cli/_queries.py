"""The flags that choose some queries with their candidates: what read-outs and calibration are fitted on."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from prorank.cli._flags import add_own_documents
from prorank.cli._model import positive

if TYPE_CHECKING:
    from prorank.data.collection import Collection
    from prorank.pipeline.queries import Candidates

__all__ = ["add_query_arguments", "chosen_queries"]


def add_query_arguments(parser: argparse.ArgumentParser, *, split: str, candidates: int) -> None:
    """``--data``, ``--split``, ``--first-stage``, ``--queries``, ``--candidates``.

    Args:
        split: the one taken where none is named.
        candidates: default of ``--candidates``.
    """
    parser.add_argument("--data", required=True, action="append", metavar="PATH", help="collection; repeatable")
    parser.add_argument("--split", metavar="NAME", help=f"which judgments (default: {split}, or the only ones)")
    parser.add_argument("--first-stage", default="bm25", metavar="NAME", help="as in evaluate (default: %(default)s)")
    add_own_documents(parser)
    parser.add_argument(
        "--queries", type=positive, default=100, metavar="N", help="queries per collection (default: %(default)s)"
    )
    parser.add_argument(
        "--candidates",
        type=positive,
        default=candidates,
        metavar="N",
        help="candidates per query (default: %(default)s)",
    )


def chosen_queries(
    args: argparse.Namespace, split: str, *, salt: str = "", accepts: Callable[[Collection, str], bool] | None = None
) -> list[Candidates]:
    """The queries that the flags ask for; ``split`` is the one taken where none is named."""
    from prorank.pipeline.queries import choose_queries

    return choose_queries(
        args.data, split=args.split, usual_split=split, first_stage=args.first_stage,
        own_documents=args.own_documents, queries=args.queries, candidates=args.candidates, salt=salt, accepts=accepts,
    )  # fmt: skip
