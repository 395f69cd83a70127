"""ir_measures: runs and judgments as its named tuples, and back.

from prorank.integrations.ir_measures import to_qrels, to_run

ir_measures.calc_aggregate([nDCG @ 10], to_qrels(collection.qrels), to_run({"q1": reranker.rank(query, documents)}))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prorank._optional import require
from prorank.integrations.runs import Rankings, plain_run
from prorank.types import Qrels, Run

ir_measures = require("ir_measures", extra="evaluate")

__all__ = ["from_run", "to_qrels", "to_run"]


def to_run(rankings: Rankings) -> list[Any]:
    """``ScoredDoc`` tuples.

    Raises:
        ValueError: as :func:`prorank.integrations.runs.plain_run`.
    """
    return [
        ir_measures.ScoredDoc(query_id, doc_id, score)
        for query_id, scores in plain_run(rankings).items()
        for doc_id, score in scores.items()
    ]


def from_run(scored: Iterable[Any]) -> Run:
    """``ScoredDoc`` tuples (such as ``read_trec_run`` yields) as query_id -> doc_id -> score, best first.

    Equal scores keep the order in which they came.
    """
    found: dict[str, dict[str, float]] = {}
    for query_id, doc_id, score in scored:
        found.setdefault(query_id, {})[doc_id] = float(score)
    return {q: dict(sorted(scores.items(), key=lambda one: -one[1])) for q, scores in found.items()}


def to_qrels(qrels: Qrels) -> list[Any]:
    """``Qrel`` tuples; negative relevance counts as 0, as in our measures."""
    return [ir_measures.Qrel(q, d, max(int(r), 0)) for q, judged in qrels.items() for d, r in judged.items()]
