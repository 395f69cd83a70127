"""Some queries with their candidates, as flags ask for them: what read-outs and calibration are fitted on."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from prorank.cli._model import positive
from prorank.pipeline.candidates import add_own_documents, lists_of, open_collection
from prorank.pipeline.checks import collection_there, first_stage_known

if TYPE_CHECKING:
    from prorank.data.collection import Collection

__all__ = ["Candidates", "add_query_arguments", "chosen_queries", "hash_of"]


class Candidates(NamedTuple):
    """One query with what the first stage found for it."""

    collection: Collection
    query_id: str
    doc_ids: list[str]

    @property
    def query(self) -> str:
        return self.collection.queries[self.query_id].text

    @property
    def texts(self) -> list[str]:
        return [self.collection.documents[doc_id].content for doc_id in self.doc_ids]


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
        "--queries", type=positive, default=100, metavar="N", help="of each collection (default: %(default)s)"
    )
    parser.add_argument(
        "--candidates", type=positive, default=candidates, metavar="N", help="of each query (default: %(default)s)"
    )


def chosen_queries(
    args: argparse.Namespace, split: str, *, salt: str = "", accepts: Callable[[Collection, str], bool] | None = None
) -> list[Candidates]:
    """At most ``--queries`` of each collection, by the hash of salt and id; collections take turns.

    Args:
        split: the one taken where none is named and there is one of that name.
        accepts: whether a query may be chosen.

    Raises:
        ValueError: no query has candidates.
    """
    from prorank.data.collection import pick_split
    from prorank.data.load import splits_of

    first_stage_known("--first-stage", args.first_stage)
    for path in args.data:  # all of them, before the first one's candidates are computed
        collection_there("--data", path, args.split)
    found = []
    for path in args.data:
        splits = splits_of(path)
        wanted = args.split or (split if split in splits else None)
        collection = open_collection(path, pick_split(path, splits, wanted), args.own_documents)
        lists = lists_of(collection, args.first_stage, args.candidates)
        ids = sorted((q for q in lists if lists[q]), key=lambda q: hash_of(salt + q))
        if accepts is not None:
            ids = [q for q in ids if accepts(collection, q)]
        found.append([Candidates(collection, q, list(lists[q])) for q in ids[: args.queries]])
    chosen = list(_in_turn(found))
    if not chosen:
        raise ValueError("--data: no query has candidates to score")
    return chosen


def hash_of(text: str) -> str:
    """SHA-256 in hex: an order that does not depend on the order of a file."""
    return hashlib.sha256(text.encode()).hexdigest()


def _in_turn(lists: list[list[Candidates]]) -> Iterator[Candidates]:
    for place in range(max(map(len, lists), default=0)):
        yield from (one[place] for one in lists if place < len(one))
