"""JSON-lines training files: triples and lists, one query a line (plain or .gz).

What a line may hold is in `prorank.data.training_rows`. Scores are a teacher's or a first stage's; they become the
candidates' scores. Equal texts without an id become one document.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prorank.data.collection import Collection
from prorank.data.lines import json_lines, malformed, write_text
from prorank.data.training_rows import read_row
from prorank.types import Document, Query, Run

__all__ = ["load_jsonl", "write_jsonl"]

logger = logging.getLogger(__name__)

_Key = str | int
"""An id given in the file, or the number of a text (from 1) that came without one."""


def load_jsonl(path: Path, split: str | None = None) -> Collection:
    """Read triples or lists as a collection: every listed document is a candidate, every labelled one is judged.

    A text that is both relevant and not to one query, as mined files have them, stays as relevant; a warning says how
    many there are.

    Args:
        split: a file has no splits; the value only names the result.

    Raises:
        ValueError: a line is malformed, or one id names two different texts.
    """
    documents: dict[_Key, Document] = {}
    by_content: dict[tuple[str, str], int] = {}
    queries: dict[_Key, str] = {}
    by_text: dict[str, int] = {}
    qrels: dict[_Key, dict[_Key, int]] = {}
    candidates: dict[_Key, dict[_Key, float]] = {}
    disputed: set[tuple[_Key, _Key]] = set()
    for number, row in json_lines(path):
        try:
            text, query_id, entries = read_row(row)
        except ValueError as error:
            raise malformed(path, number, str(error)) from None
        query: _Key = query_id or by_text.setdefault(text, len(by_text) + 1)
        if queries.setdefault(query, text) != text:
            raise malformed(path, number, f"the query id {query_id!r} names two different texts")
        listed = candidates.setdefault(query, {})
        for place, (document, relevance, score) in enumerate(entries):
            content = (document.title, document.text)
            key: _Key = document.doc_id or by_content.setdefault(content, len(by_content) + 1)
            known = documents.setdefault(key, document)
            if (known.title, known.text) != content:
                raise malformed(path, number, f"the document id {key!r} names two different texts")
            listed.setdefault(key, -float(len(listed)) if score is None else score)
            if relevance is None:
                continue
            judged = qrels.setdefault(query, {})
            earlier = judged.setdefault(key, relevance)
            if earlier != relevance:
                if (earlier > 0) == (relevance > 0):
                    raise malformed(path, number, f"document {place} ({_shown(document)}) is judged twice, differently")
                judged[key] = max(earlier, relevance)
                disputed.add((query, key))
    dropped = _drop_copies(documents, qrels, candidates) + len(disputed)
    if dropped:
        negatives = "negative" if dropped == 1 else "negatives"
        logger.warning("%s: dropped %d %s whose text is also a positive of the same query", path, dropped, negatives)
    query_ids, doc_ids = _names(queries, "q"), _names(documents, "d")
    return Collection(
        path.name.removesuffix(".gz").removesuffix(".jsonl"),
        {doc_ids[key]: document._replace(doc_id=doc_ids[key]) for key, document in documents.items()},
        {query_ids[key]: Query(query_ids[key], text) for key, text in queries.items()},
        {query_ids[q]: {doc_ids[d]: r for d, r in judged.items()} for q, judged in qrels.items()},
        split,
        candidates={
            query_ids[q]: {doc_ids[d]: s for d, s in sorted(listed.items(), key=lambda item: -item[1])}
            for q, listed in candidates.items()
        },
    )


def _drop_copies(
    documents: Mapping[_Key, Document], qrels: dict[_Key, dict[_Key, int]], candidates: dict[_Key, dict[_Key, float]]
) -> int:
    """Drop irrelevant documents whose text is a relevant one's under another id; how many."""
    dropped = 0
    for query, judged in qrels.items():
        relevant = {documents[key][1:] for key, relevance in judged.items() if relevance > 0}
        copies = [key for key, relevance in judged.items() if relevance <= 0 and documents[key][1:] in relevant]
        for key in copies:
            del judged[key], candidates[query][key]
        dropped += len(copies)
    return dropped


def _names(keys: Iterable[_Key], prefix: str) -> dict[_Key, str]:
    """Ids as given; numbers after the prefix for the others, past those that are taken."""
    found: dict[_Key, str] = {key: key for key in keys if isinstance(key, str)}
    taken, number = set(found), 0
    for key in keys:
        if isinstance(key, str):
            continue
        number += 1
        while f"{prefix}{number}" in taken:
            number += 1
        found[key] = f"{prefix}{number}"
    return found


def _shown(document: Document) -> str:
    return document.doc_id or repr(document.text[:40])


def write_jsonl(collection: Collection, path: Path, candidates: Run | None = None) -> None:
    """Write lists: per query the candidates (given, the collection's own, or else the judged documents).

    A document without a judgment gets no ``relevance``; candidates' scores are kept as ``score``.
    """
    lists = candidates or collection.candidates

    def lines() -> Iterator[str]:
        for query_id, query in collection.queries.items():
            judged = collection.qrels.get(query_id, {})
            scored: Mapping[str, float | None] = (
                lists.get(query_id, {}) if lists is not None else dict.fromkeys(judged, None)
            )
            rows = [
                _document_row(collection.documents[doc_id], judged.get(doc_id), score)
                for doc_id, score in scored.items()
                if doc_id in collection.documents
            ]
            if rows:
                row = {"query": {"query_id": query_id, "text": query.text}, "documents": rows}
                yield json.dumps(row, ensure_ascii=False)

    write_text(path, lines())


def _document_row(document: Document, relevance: int | None, score: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"doc_id": document.doc_id, "text": document.text}
    if document.title:
        row["title"] = document.title
    if relevance is not None:
        row["relevance"] = relevance
    if score is not None:
        row["score"] = float(score)
    return row
