"""Hard negatives from candidates: rank window, margins to the positive, and a false-negative filter by any scorer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from prorank.data.collection import Collection
from prorank.types import Run

__all__ = ["Teacher", "mine_negatives"]

Teacher = Callable[[str, Sequence[str]], npt.ArrayLike]
"""(query, documents) -> one score a document, higher is more relevant: a cross-encoder, a reranker's ``margins``."""


def mine_negatives(
    collection: Collection,
    candidates: Run,
    *,
    negatives: int = 15,
    rank_from: int = 1,
    rank_to: int = 100,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    teacher: Teacher | None = None,
    pick: str = "top",
    min_relevance: int = 1,
    seed: int = 0,
) -> dict[str, list[str]]:
    """Per query the doc_ids of hard negatives, best ranked first.

    A candidate is a negative if it lies in the rank window, is not judged relevant (a judged 0 or no judgment), does
    not have the very text of a relevant document nor (where the collection leaves such documents out) the query's own
    id, and scores low enough beside the query's best relevant document.

    Args:
        candidates: a first stage's lists.
        rank_from: first rank of the window, from 1; a later start leaves out the likely false negatives.
        rank_to: last rank of the window, inclusive.
        absolute_margin: keep a candidate if its score <= positive score - margin.
        relative_margin: keep a candidate if its score <= positive score * (1 - margin), for positive scores.
        teacher: scores for the two margins; the candidates' own scores (where the positive is listed) by default.
        pick: ``top`` (hardest) or ``random`` (uniform over the window).
        min_relevance: judgments of at least this are relevant.
        seed: of ``random``; each query draws independently of the others.

    Returns:
        Only queries with at least one relevant document in the corpus and one negative.

    Raises:
        ValueError: a number is out of range, or ``pick`` is unknown.
    """
    if negatives < 1:
        raise ValueError(f"negatives must be at least 1, got {negatives}")
    if not 1 <= rank_from <= rank_to:
        raise ValueError(f"rank-from and rank-to must satisfy 1 <= from <= to, got {rank_from} and {rank_to}")
    if pick not in ("top", "random"):
        raise ValueError(f"pick must be top or random, got {pick!r}")
    mined: dict[str, list[str]] = {}
    for query_id, judged in collection.qrels.items():
        positives = [d for d, r in judged.items() if r >= min_relevance and d in collection.documents]
        listed = collection.without_own({query_id: candidates.get(query_id, {})})[query_id]
        if not positives or not listed:
            continue
        texts = {collection.documents[d].content for d in positives}
        window = [
            doc_id
            for doc_id in list(listed)[rank_from - 1 : rank_to]
            if judged.get(doc_id, 0) < min_relevance and collection.documents[doc_id].content not in texts
        ]
        if absolute_margin is not None or relative_margin is not None:
            scores = _scores(collection, query_id, positives, window, listed, teacher)
            window = _below(scores, positives, window, absolute_margin, relative_margin)
        if pick == "random" and len(window) > negatives:
            chosen = set(random.Random(f"{seed} {query_id}").sample(window, negatives))
            window = [doc_id for doc_id in window if doc_id in chosen]
        if window:
            mined[query_id] = window[:negatives]
    return mined


def _scores(
    collection: Collection, query_id: str, positives: Sequence[str], window: Sequence[str],
    listed: Mapping[str, float], teacher: Teacher | None,
) -> dict[str, float]:  # fmt: skip
    if teacher is None:
        return {doc_id: listed[doc_id] for doc_id in (*positives, *window) if doc_id in listed}
    doc_ids = [*positives, *window]
    values = np.asarray(
        teacher(collection.queries[query_id].text, [collection.documents[d].content for d in doc_ids]), dtype=np.float64
    )
    return dict(zip(doc_ids, values.tolist(), strict=True))


def _below(
    scores: Mapping[str, float], positives: Sequence[str], window: list[str], absolute: float | None,
    relative: float | None,
) -> list[str]:  # fmt: skip
    best = max((scores[d] for d in positives if d in scores), default=None)
    if best is None:
        return window  # the first stage missed every positive: there is nothing to compare with
    limit = float("inf")
    if absolute is not None:
        limit = min(limit, best - absolute)
    if relative is not None:
        limit = min(limit, best - abs(best) * relative)
    return [doc_id for doc_id in window if scores[doc_id] <= limit]
