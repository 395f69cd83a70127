"""What training data and evaluation sets share: such queries and passages are reported and dropped before training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from prorank.data.collection import Collection

__all__ = ["Overlap", "find_overlap", "without"]

_NOT_WORD = re.compile(r"[\W_]+")


class Overlap(NamedTuple):
    """Ids of the training collection."""

    query_ids: frozenset[str]
    """Queries whose text is a query of an evaluation set."""
    doc_ids: frozenset[str]
    """Passages whose text is a passage of an evaluation set's corpus (never counted where it is the same corpus)."""


def find_overlap(training: Collection, evaluation: Sequence[Collection]) -> Overlap:
    """Equal texts, compared without case, punctuation and spacing; empty ones match nothing.

    A corpus that both share as a whole (splits of one collection) is no overlap of passages: only queries differ.
    """
    queries = {_plain(q.text) for other in evaluation for q in other.queries.values()} - {""}
    passages = {
        _plain(d.content)
        for other in evaluation
        if other.documents_hash != training.documents_hash
        for d in other.documents.values()
    } - {""}
    return Overlap(
        frozenset(i for i, q in training.queries.items() if _plain(q.text) in queries),
        frozenset(i for i, d in training.documents.items() if passages and _plain(d.content) in passages),
    )


def without(collection: Collection, overlap: Overlap) -> Collection:
    """The collection without the overlapping queries and passages, and without what hangs on them."""
    if not any(overlap):
        return collection
    qrels = {
        query_id: {d: r for d, r in judged.items() if d not in overlap.doc_ids}
        for query_id, judged in collection.qrels.items()
        if query_id not in overlap.query_ids
    }
    candidates = collection.candidates and {
        query_id: {d: s for d, s in listed.items() if d not in overlap.doc_ids}
        for query_id, listed in collection.candidates.items()
        if query_id not in overlap.query_ids
    }
    return replace(
        collection,
        documents={i: d for i, d in collection.documents.items() if i not in overlap.doc_ids},
        queries={i: q for i, q in collection.queries.items() if i not in overlap.query_ids},
        qrels={q: judged for q, judged in qrels.items() if judged},
        candidates=candidates,
        dropped=collection.dropped | overlap.doc_ids,
    )


def _plain(text: str) -> str:
    return _NOT_WORD.sub(" ", text.casefold()).strip()
