"""A test collection in memory: documents, queries, judgments. It knows no file format (``load`` does)."""

from __future__ import annotations

import hashlib
import importlib
import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prorank.types import Document, Qrels, Query, Run

__all__ = ["Collection", "CollectionStats", "OwnDocuments", "pick_split", "without_unknown"]

OwnDocuments = Literal["keep", "drop"]
"""What becomes of the document that has the query's own id."""

logger = logging.getLogger(__name__)


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
    keeps_own: bool = True
    """Whether a document may be a candidate of the query with its very id. False is BEIR's rule
    (``ignore_identical_ids``): the queries of ArguAna and Quora are documents of their collections."""
    dropped: frozenset[str] = frozenset()
    """Ids of documents that were taken out on purpose; run files that still list them are read without them."""

    @cached_property
    def own_documents(self) -> frozenset[str]:
        """Ids that a query and a document share, where such documents are left out; else none."""
        return frozenset() if self.keeps_own else frozenset(self.queries.keys() & self.documents.keys())

    def without_own(self, run: Run, top_k: int | None = None) -> Run:
        """The lists without the documents that :attr:`own_documents` leaves out, cut to ``top_k``."""
        own = self.own_documents
        kept = {q: {d: s for d, s in listed.items() if d != q} if q in own else listed for q, listed in run.items()}
        return kept if top_k is None else {q: dict(list(listed.items())[:top_k]) for q, listed in kept.items()}

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


def without_unknown(qrels: Qrels, queries: Mapping[str, Query], where: str, source: str) -> dict[str, dict[str, int]]:
    """The judgments of queries that are there; a warning says how many are left out, as published files have some.

    Args:
        where: the judgments' file, for messages.
        source: what should hold the queries, for messages.

    Raises:
        ValueError: there are judgments, and no judged query is there.
    """
    unknown = [query_id for query_id in qrels if query_id not in queries]
    if unknown and len(unknown) == len(qrels):
        raise ValueError(f"{where}: none of the {len(qrels)} judged queries is in {source}, first {unknown[0]!r}")
    if unknown:
        judgments = sum(len(qrels[query_id]) for query_id in unknown)
        logger.warning(
            "%s: left out %d %s of %d %s missing from %s, first %r", where,
            judgments, "judgment" if judgments == 1 else "judgments",
            len(unknown), "query that is" if len(unknown) == 1 else "queries that are", source, unknown[0],
        )  # fmt: skip
    return {query_id: dict(judged) for query_id, judged in qrels.items() if query_id in queries}


def _mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def _hash(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()


def __getattr__(name: str) -> Any:
    """Names that moved to ``prorank.data.load``; they work here, with a warning, for one more minor version."""
    if name not in ("load_collection", "splits_of", "training_split"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is now prorank.data.load.{name}", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module("prorank.data.load"), name)
