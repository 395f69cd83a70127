"""Runs as other evaluation libraries take them: they order by score alone, so no two scores of a query may be equal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from prorank.ranking import Ranking
from prorank.types import Run

__all__ = ["Rankings", "plain_run"]

Rankings = Run | Mapping[str, Ranking]
"""query_id -> what :meth:`prorank.Reranker.rank` answers, or doc_id -> score in rank order."""


def plain_run(rankings: Rankings) -> dict[str, dict[str, float]]:
    """query_id -> doc_id -> score, strictly falling in rank order.

    Each library breaks ties by a rule of its own; here they are broken already. So a score that is not below the one
    before it becomes the next smaller float32, which changes no margin by more than its rounding.

    Raises:
        ValueError: a document comes twice, or scores rise: the order is not theirs.
    """
    run: dict[str, dict[str, float]] = {}
    for query_id, ranking in rankings.items():
        scores = _scores(query_id, ranking)
        if any(after > before for before, after in pairwise(scores.values())):
            raise ValueError(f"query {query_id!r}: the scores rise somewhere; expected documents in rank order")
        last = np.float32(np.inf)
        for doc_id, score in scores.items():
            last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
            scores[doc_id] = float(last)
        run[query_id] = scores
    return run


def _scores(query_id: str, ranking: Ranking | Mapping[str, float]) -> dict[str, float]:
    if not isinstance(ranking, Ranking):
        return dict(ranking)
    scores = {result.doc_id: result.margin for result in ranking}
    if len(scores) < len(ranking):
        raise ValueError(f"query {query_id!r}: a document id comes twice")
    return scores
