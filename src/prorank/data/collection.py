"""A test collection in memory: documents, queries, judgments. It knows no file format (``load`` does)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from prorank.types import Document, Qrels, Query, Run

__all__ = ["Collection", "CollectionStats", "pick_split"]


class CollectionStats(NamedTuple):
    """Counts of one split; lengths are in white-space separated words."""

    documents: int
    queries: int
    judgments: int
    relevant: int
    """Judgments with relevance of at least 1."""
    judged_outside: int
    """Judgments of documents that the corpus does not hold."""
    relevance_levels: tuple[int, ...]
    document_words: float
    query_words: float
    empty_documents: int


@dataclass(frozen=True)
class Collection:
    """Documents, the queries of one split, and their judgments."""

    name: str
    documents: Mapping[str, Document]
    """doc_id -> document, in file order."""
    queries: Mapping[str, Query]
    """query_id -> query: those of the split (every query where the collection has no judgments)."""
    qrels: Qrels = field(default_factory=dict)
    """query_id -> doc_id -> relevance; may judge documents that ``documents`` lacks (they count in ideal rankings)."""
    split: str | None = None
    candidates: Run | None = None
    """The lists that came with the data (triples, lists, scored documents), best first; None where there are none."""
    runs: Mapping[str, Path] = field(default_factory=dict)
    """Name -> TREC run file of the first stages that lie in the collection's own folder."""

    @cached_property
    def documents_hash(self) -> str:
        """sha256 over ids, titles and texts in order: what an index or a matrix of embeddings depends on."""
        return _hash(part for d in self.documents.values() for part in (d.doc_id, d.title, d.text))

    @cached_property
    def queries_hash(self) -> str:
        """sha256 over the ids and texts of the queries in order."""
        return _hash(part for q in self.queries.values() for part in q)

    @cached_property
    def qrels_hash(self) -> str:
        """sha256 over the judgments, whatever their order in the file."""
        return _hash(
            part
            for query_id in sorted(self.qrels)
            for doc_id, relevance in sorted(self.qrels[query_id].items())
            for part in (query_id, doc_id, str(relevance))
        )

    def stats(self) -> CollectionStats:
        """Counts and mean lengths, for people."""
        judged = [(d, r) for judgments in self.qrels.values() for d, r in judgments.items()]
        return CollectionStats(
            documents=len(self.documents),
            queries=len(self.queries),
            judgments=len(judged),
            relevant=sum(r > 0 for _, r in judged),
            judged_outside=sum(d not in self.documents for d, _ in judged),
            relevance_levels=tuple(sorted({r for _, r in judged})),
            document_words=_mean([len(d.content.split()) for d in self.documents.values()]),
            query_words=_mean([len(q.text.split()) for q in self.queries.values()]),
            empty_documents=sum(not d.content.strip() for d in self.documents.values()),
        )


def pick_split(where: Path | str, available: list[str], split: str | None) -> str | None:
    """``split`` where it exists; the only one where none is named; None where there are no splits at all.

    Raises:
        ValueError: the split does not exist, or several do and none is named.
    """
    if split is not None and split not in available:
        raise ValueError(f"split: {where} has {', '.join(available) or 'no judgments'}; {split!r} is not among them")
    if split is None and len(available) > 1:
        raise ValueError(f"split: {where} has {', '.join(available)}; name one")
    return split if split is not None else (available[0] if available else None)


def _mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def _hash(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()
