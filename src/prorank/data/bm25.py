"""BM25 by `bm25s`, set as the published BEIR baselines are: k1 0.9, b 0.4, stemmer and stop words, title + text.

A document that matches no query term (score 0) is not retrieved. Equal scores keep the corpus's order.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from prorank._optional import require
from prorank.data.collection import Collection
from prorank.types import Run

__all__ = ["K1", "B", "bm25_run", "key"]

K1, B = 0.9, 0.4


def key(collection: Collection, top_k: int, *, pad: bool = False) -> tuple[object, ...]:
    """What a BM25 run depends on; the first part is a readable name."""
    require("bm25s", extra="evaluate")
    require("Stemmer", extra="evaluate")
    libraries = version("bm25s"), version("PyStemmer")
    name = "bm25-padded" if pad else "bm25"
    return name, K1, B, *libraries, collection.documents_hash, collection.queries_hash, top_k


def bm25_run(collection: Collection, top_k: int, *, pad: bool = False) -> Run:
    """Rank the collection's documents for each of its queries; a query without a known term gets an empty list.

    Args:
        pad: fill every list to ``top_k`` with documents that share no term with the query, score 0, those that bm25s's
            own ``retrieve`` takes: published lists are often made so.
    """
    bm25s = require("bm25s", extra="evaluate")
    stemmer = require("Stemmer", extra="evaluate").Stemmer("english")
    run: dict[str, dict[str, float]] = {query_id: {} for query_id in collection.queries}
    if not collection.documents or not run:
        return run

    def tokens(texts: list[str], **options):
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False, **options)

    doc_ids = list(collection.documents)
    corpus = tokens([d.content for d in collection.documents.values()])
    if not corpus.vocab or all(token == "" for token in corpus.vocab):
        return run  # no document has a word that BM25 reads
    index = bm25s.BM25(k1=K1, b=B)
    index.index(corpus, show_progress=False)
    terms = tokens([query.text for query in collection.queries.values()], return_ids=False)
    for query_id, query_terms in zip(run, terms, strict=True):
        known = [term for term in query_terms if term in index.vocab_dict and term]
        if known:
            scores = index.get_scores(known)
            run[query_id] = {doc_ids[i]: float(scores[i]) for i in _best(scores, top_k)}
        if pad and len(run[query_id]) < top_k:
            count = min(top_k, len(doc_ids))
            scores = index.get_scores(known) if known else np.zeros(len(doc_ids), dtype=np.float32)
            for i in np.argpartition(scores, -count)[-count:]:
                run[query_id].setdefault(doc_ids[i], 0.0)
    return run


def _best(scores: np.ndarray, top_k: int) -> np.ndarray:
    """Indices of the ``top_k`` largest positive scores, best first, equal ones in corpus order."""
    found = np.flatnonzero(scores > 0)
    if len(found) > top_k:
        threshold = np.partition(scores[found], -top_k)[-top_k]
        found = found[scores[found] >= threshold]
    return found[np.argsort(-scores[found], kind="stable")][:top_k]
