"""ranx: runs and judgments as its objects, and back.

from prorank.integrations.ranx import to_qrels, to_run

ranx.evaluate(to_qrels(collection.qrels), to_run({"q1": reranker.rank(query, documents)}), ["ndcg@10"])
"""

from __future__ import annotations

from typing import Any

from prorank._optional import require
from prorank.integrations.runs import Rankings, plain_run
from prorank.types import Qrels, Run

ranx = require("ranx", extra="ranx")

__all__ = ["from_run", "to_qrels", "to_run"]


def to_run(rankings: Rankings, name: str = "prorank") -> Any:
    """A ``ranx.Run``; queries without documents, which it cannot hold, are left out (``make_comparable`` counts 0).

    Raises:
        ValueError: as :func:`prorank.integrations.runs.plain_run`, or there is no document at all.
    """
    run = {query_id: scores for query_id, scores in plain_run(rankings).items() if scores}
    if not run:
        raise ValueError("run: there is no query with a document")
    return ranx.Run(run, name=name)


def from_run(run: Any) -> Run:
    """A ``ranx.Run`` as query_id -> doc_id -> score, best first."""
    return {str(q): dict(sorted(found.items(), key=lambda one: -one[1])) for q, found in run.to_dict().items()}


def to_qrels(qrels: Qrels) -> Any:
    """A ``ranx.Qrels``; negative relevance counts as 0, as in our measures."""
    return ranx.Qrels({q: {d: max(int(r), 0) for d, r in judged.items()} for q, judged in qrels.items()})
