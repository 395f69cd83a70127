"""JSON-lines training files: triples and lists, one query a line (plain or .gz).

Accepted fields, by the names in common use:

- triples: ``query``, ``positive`` (or ``pos``), ``negative`` (or ``neg``, ``negatives``); a string or a list each;
- lists: ``query``, ``documents`` (strings, or objects with ``text`` and optionally ``title``, ``doc_id``/``_id``,
  ``relevance``, ``score``), with ``relevance`` (or ``labels``) and ``scores`` as lists beside them if not inside.

``query`` is a string or an object with ``text`` and ``query_id``/``_id``. ``scores`` are a teacher's or a first
stage's; they become the candidates' scores. Equal texts without an id become one document.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prorank.data.collection import Collection
from prorank.data.lines import json_lines, malformed, write_text
from prorank.types import Document, Query, Run

__all__ = ["load_jsonl", "write_jsonl"]


class _Entry(NamedTuple):
    document: Document
    relevance: int | None
    score: float | None


def load_jsonl(path: Path, split: str | None = None) -> Collection:
    """Read triples or lists as a collection: every listed document is a candidate, every labelled one is judged.

    Args:
        split: a file has no splits; the value only names the result.

    Raises:
        ValueError: a line is malformed, or one id names two different texts.
    """
    documents: dict[str, Document] = {}
    by_content: dict[tuple[str, str], str] = {}
    queries: dict[str, Query] = {}
    by_text: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    candidates: dict[str, dict[str, float]] = {}
    for number, row in json_lines(path):
        try:
            text, query_id = _query(row.get("query"))
            entries = _entries(row)
        except ValueError as error:
            raise malformed(path, number, str(error)) from None
        query_id = query_id or by_text.setdefault(text, f"q{len(by_text) + 1}")
        if queries.setdefault(query_id, Query(query_id, text)).text != text:
            raise malformed(path, number, f"the query id {query_id!r} names two different texts")
        listed = candidates.setdefault(query_id, {})
        for place, (document, relevance, score) in enumerate(entries):
            content = (document.title, document.text)
            doc_id = document.doc_id or by_content.setdefault(content, f"d{len(by_content) + 1}")
            known = documents.setdefault(doc_id, document._replace(doc_id=doc_id))
            if (known.title, known.text) != content:
                raise malformed(path, number, f"the document id {doc_id!r} names two different texts")
            listed.setdefault(doc_id, -float(len(listed)) if score is None else score)
            if relevance is not None and qrels.setdefault(query_id, {}).setdefault(doc_id, relevance) != relevance:
                raise malformed(path, number, f"document {place} ({doc_id}) is judged twice, differently")
    ordered = {q: dict(sorted(listed.items(), key=lambda item: -item[1])) for q, listed in candidates.items()}
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return Collection(name, documents, queries, qrels, split, candidates=ordered)


def write_jsonl(collection: Collection, path: Path, candidates: Run | None = None) -> None:
    """Write lists: per query the candidates (given, the collection's own, or else the judged documents).

    A document without a judgment gets no ``relevance``; candidates' scores are kept as ``score``.
    """
    lists = candidates or collection.candidates

    def lines():
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


def _query(value: Any) -> tuple[str, str]:
    if isinstance(value, Mapping):
        text, query_id = value.get("text"), value.get("query_id", value.get("_id", ""))
    else:
        text, query_id = value, ""
    if not isinstance(text, str):
        raise ValueError("the field 'query' must be a string, or an object with 'text'")
    return text, str(query_id)


def _entries(row: Mapping[str, Any]) -> list[_Entry]:
    if "documents" not in row:
        positives = _texts(row, "positive", "pos", "positives")
        negatives = _texts(row, "negative", "neg", "negatives")
        if not positives and not negatives:
            raise ValueError("expected 'documents', or 'positive' and 'negative'")
        return [_entry(p, 1, None) for p in positives] + [_entry(n, 0, None) for n in negatives]
    documents = row["documents"]
    if not isinstance(documents, list):
        raise ValueError("the field 'documents' must be a list")
    labels = _beside(row, ("relevance", "labels"), len(documents))
    scores = _beside(row, ("scores", "score"), len(documents))
    return [_entry(d, r, s) for d, r, s in zip(documents, labels, scores, strict=True)]


def _texts(row: Mapping[str, Any], *names: str) -> list[Any]:
    for name in names:
        if name in row:
            return row[name] if isinstance(row[name], list) else [row[name]]
    return []


def _beside(row: Mapping[str, Any], names: tuple[str, ...], length: int) -> list[Any]:
    for name in names:
        if name in row:
            values = row[name]
            if not isinstance(values, list) or len(values) != length:
                raise ValueError(f"the field {name!r} must be a list as long as 'documents' ({length})")
            return values
    return [None] * length


def _entry(value: Any, relevance: Any, score: Any) -> _Entry:
    doc_id, title, text = "", "", value
    if isinstance(value, Mapping):
        text, title = value.get("text"), value.get("title") or ""
        doc_id = str(value.get("doc_id", value.get("_id", "")))
        relevance, score = value.get("relevance", relevance), value.get("score", score)
    if not isinstance(text, str) or not isinstance(title, str):
        raise ValueError("a document must be a string, or an object with 'text' (and 'title') as strings")
    if relevance is not None and (isinstance(relevance, bool | str) or int(relevance) != relevance):
        raise ValueError(f"a relevance must be an integer, got {relevance!r}")
    if score is not None and (isinstance(score, bool | str) or not math.isfinite(score)):
        raise ValueError(f"a score must be a finite number, got {score!r}")
    return _Entry(
        Document(doc_id, text, title),
        None if relevance is None else int(relevance),
        None if score is None else float(score),
    )
