"""Some queries of some collections with their candidates: what read-outs and calibration are fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prorank.data.collection import Collection, OwnDocuments, pick_split
from prorank.data.load import splits_of
from prorank.pipeline.candidates import lists_of, open_collection
from prorank.pipeline.checks import collection_there, first_stage_known

__all__ = ["Candidates", "choose_queries", "hash_of"]


class Candidates(NamedTuple):
    """One query with what the first stage found for it."""

    collection: Collection
    query_id: str
    doc_ids: list[str]

    @property
    def query(self) -> str:
        """The query's text."""
        return self.collection.queries[self.query_id].text

    @property
    def texts(self) -> list[str]:
        """The candidates' contents."""
        return [self.collection.documents[doc_id].content for doc_id in self.doc_ids]


def choose_queries(
    paths: Sequence[str],
    *,
    split: str | None = None,
    usual_split: str = "train",
    first_stage: str = "bm25",
    own_documents: OwnDocuments | None = None,
    queries: int = 100,
    candidates: int = 50,
    salt: str = "",
    accepts: Callable[[Collection, str], bool] | None = None,
) -> list[Candidates]:
    """At most ``queries`` of each collection, by the hash of salt and id; collections take turns.

    Args:
        split: which judgments.
        usual_split: the split taken where none is named and there is one of that name.
        accepts: whether a query may be chosen.

    Raises:
        ValueError: no query has candidates.
    """
    first_stage_known("first_stage", first_stage)
    for path in paths:  # all of them, before the first one's candidates are computed
        collection_there("data", path, split)
    found = []
    for path in paths:
        known = [name for name in splits_of(path) if name is not None]
        wanted = split or (usual_split if usual_split in known else None)
        collection = open_collection(path, pick_split(path, known, wanted) if known else wanted, own_documents)
        lists = lists_of(collection, first_stage, candidates)
        ids = sorted((q for q in lists if lists[q]), key=lambda q: hash_of(salt + q))
        if accepts is not None:
            ids = [q for q in ids if accepts(collection, q)]
        found.append([Candidates(collection, q, list(lists[q])) for q in ids[:queries]])
    chosen = list(_in_turn(found))
    if not chosen:
        raise ValueError("data: no query has candidates to score")
    return chosen


def hash_of(text: str) -> str:
    """SHA-256 in hex: an order that does not depend on the order of a file."""
    return hashlib.sha256(text.encode()).hexdigest()


def _in_turn(lists: Sequence[Sequence[Candidates]]) -> Iterator[Candidates]:
    for place in range(max(map(len, lists), default=0)):
        yield from (one[place] for one in lists if place < len(one))
