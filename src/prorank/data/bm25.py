"""BM25 by `bm25s`, set as the published BEIR baselines are: k1 0.9, b 0.4, stemmer and stop words, title + text.

A document that matches no query term (score 0) is not retrieved. Equal scores keep the corpus's order. How texts are
read depends on the query alone (see :mod:`prorank.data.terms`): one in English gets the same list and the same scores
whatever other queries stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.data.collection import Collection
from prorank.data.terms import BIGRAMS, READING, SINGLES, WORDS, Reading, reading_of, rest_of
from prorank.types import Run

__all__ = ["K1", "B", "bm25_run", "key"]

K1, B = 0.9, 0.4


def key(collection: Collection, top_k: int) -> tuple[object, ...]:
    """What a BM25 run depends on; the first part is a readable name."""
    require("bm25s", extra="evaluate")
    require("Stemmer", extra="evaluate")
    libraries = version("bm25s"), version("PyStemmer")
    return "bm25", READING, K1, B, *libraries, collection.documents_hash, collection.queries_hash, top_k


def bm25_run(collection: Collection, top_k: int) -> Run:
    """Rank the collection's documents for each of its queries; a query without a known term gets an empty list.

    Queries with text of a script without spaces are matched by bigrams of characters, others by words; where a query
    finds nothing so, single characters and then stop words are looked for too.
    """
    run: dict[str, dict[str, float]] = {query_id: {} for query_id in collection.queries}
    doc_ids = list(collection.documents)
    if not doc_ids or not run:
        return run
    texts = [document.content for document in collection.documents.values()]
    ways: dict[Reading, dict[str, list[str]]] = {WORDS: {}, BIGRAMS: {}, SINGLES: {}}
    queries = collection.queries
    for reading in (WORDS, BIGRAMS):
        ids = [query_id for query_id, query in queries.items() if reading_of(query.text) is reading]
        ways[reading] = dict(zip(ids, _terms([queries[q].text for q in ids], reading), strict=True))
    for reading, terms in ways.items():  # one index in memory at a time
        index = _Index(texts, reading) if any(terms.values()) else None
        missed = {}
        for query_id, query_terms in terms.items():
            scores = index.scores(query_terms) if index is not None else None
            if scores is not None:
                run[query_id] = {doc_ids[i]: float(scores[i]) for i in _best(scores, top_k)}
            elif reading is not SINGLES:
                missed[query_id] = rest_of(queries[query_id].text, has_terms=bool(query_terms))
        ways[SINGLES] |= dict(zip(missed, _terms(list(missed.values()), SINGLES), strict=True))
    return run


class _Index:
    """The documents by one way of reading."""

    def __init__(self, texts: Sequence[str], reading: Reading) -> None:
        bm25s = require("bm25s", extra="evaluate")
        corpus = _tokenize(texts, reading)
        self._index = bm25s.BM25(k1=K1, b=B)
        self._empty = not corpus.vocab or all(token == "" for token in corpus.vocab)
        if not self._empty:  # else no document has anything that is read so
            self._index.index(corpus, show_progress=False)

    def scores(self, terms: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """A score a document; None where the documents have none of the terms."""
        known = [] if self._empty else [term for term in terms if term in self._index.vocab_dict and term]
        return self._index.get_scores(known) if known else None


def _terms(texts: Sequence[str], reading: Reading) -> list[list[str]]:
    return [list(filter(None, terms)) for terms in _tokenize(texts, reading, return_ids=False)] if texts else []


def _tokenize(texts: Sequence[str], reading: Reading, **options: Any) -> Any:
    bm25s = require("bm25s", extra="evaluate")
    stemmer = require("Stemmer", extra="evaluate").Stemmer("english")
    return bm25s.tokenize(
        [reading.prepare(text) for text in texts],
        stopwords="en" if reading.stop_words else None,
        token_pattern=reading.pattern,
        stemmer=stemmer,
        show_progress=False,
        **options,
    )


def _best(scores: npt.NDArray[np.float32], top_k: int) -> npt.NDArray[np.intp]:
    """Indices of the ``top_k`` largest positive scores, best first, equal ones in corpus order."""
    found = np.flatnonzero(scores > 0)
    if len(found) > top_k:
        threshold = np.partition(scores[found], -top_k)[-top_k]
        found = found[scores[found] >= threshold]
    return found[np.argsort(-scores[found], kind="stable")][:top_k]
