"""``/score``: pairs of texts as vLLM asks for them, each answered in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prorank.serve import schemas
from prorank.serve.errors import INVALID_STATUS, ApiError
from prorank.serve.work import ScoredWork, Work

__all__ = ["score_answer", "score_work"]


def _pairs(request: schemas.ScoreRequest) -> list[tuple[str, str]]:
    first = [request.text_1] if isinstance(request.text_1, str) else request.text_1
    second = [request.text_2] if isinstance(request.text_2, str) else request.text_2
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise ApiError(
            INVALID_STATUS["score"],
            "invalid",
            f"text_1: expected one, or as many as text_2; got {len(first)} and {len(second)}",
            param="text_1",
        )
    return list(zip(first, second, strict=True))


def _by_query(pairs: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(place)
    return places


def score_work(request: schemas.ScoreRequest) -> Work:
    """The pairs as lists, one a query."""
    pairs = _pairs(request)  # pairs of one query are scored together: they share its prefix
    lists = [(query, [pairs[place][1] for place in places]) for query, places in _by_query(pairs).items()]
    return Work(lists, **request.common())


def score_answer(request: schemas.ScoreRequest, outcome: ScoredWork) -> dict[str, Any]:
    """A score a pair, in the pairs' order; those below a threshold are missing."""
    data: list[tuple[int, float]] = []
    for place, places in enumerate(_by_query(_pairs(request)).values()):
        rows = zip(places, outcome.scores[place], outcome.kept(place), strict=True)
        data += [(index, float(score)) for index, score, kept in rows if kept]
    answer = {
        "id": outcome.request_id,
        "object": "list",
        "created": outcome.created,
        "model": outcome.model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in sorted(data)],
        "usage": outcome.usage,
    }
    return answer | ({"meta": outcome.meta} if outcome.meta else {})
