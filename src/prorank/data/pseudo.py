"""Pseudo-queries for documents without queries: a document's title, or its first sentence, asks for the rest of it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Literal

from prorank.data.collection import Collection
from prorank.types import Document, Query

__all__ = ["pseudo_queries"]

_SENTENCE = re.compile(r"\s*(.{7,}?(?:[。！？]|(?<=.{15})[.!?](?=\s)))\s*(?=\S)", re.DOTALL)
"""No space need follow a full stop of Chinese or Japanese, whose sentences have fewer characters."""


def pseudo_queries(
    collection: Collection, kind: Literal["title", "first-sentence"], *, limit: int | None = None
) -> Collection:
    """A collection whose queries are taken out of its documents; each asks for the document that it came from.

    Args:
        kind: ``title``: of documents that have one; ``first-sentence``: of documents with at least two.
        limit: at most so many queries, chosen by the hash of the doc_id; the other documents stay as they are.

    Raises:
        ValueError: no document has what is asked for.
    """
    ids = sorted(collection.documents, key=lambda d: hashlib.sha256(d.encode()).hexdigest())
    documents = dict(collection.documents)
    queries: dict[str, Query] = {}
    for doc_id in ids:
        if limit is not None and len(queries) >= limit:
            break
        query, rest = _taken(collection.documents[doc_id], kind)
        if query and rest:
            queries[f"pseudo-{doc_id}"] = Query(f"pseudo-{doc_id}", query)
            documents[doc_id] = Document(doc_id, rest, "" if kind == "title" else collection.documents[doc_id].title)
    if not queries:
        raise ValueError(f"pseudo-queries: no document of {collection.name} has a {kind.replace('-', ' ')} and a rest")
    qrels = {query_id: {query_id.removeprefix("pseudo-"): 1} for query_id in queries}
    return replace(collection, documents=documents, queries=queries, qrels=qrels, split=kind, candidates=None, runs={})


def _taken(document: Document, kind: str) -> tuple[str, str]:
    if kind == "title":
        return document.title.strip(), document.text.strip()
    found = _SENTENCE.match(document.text)
    return (found[1].strip(), document.text[found.end() :].strip()) if found else ("", "")
