"""What refine is judged by on the way: mean nDCG@10 over queries that were not trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prorank.evaluate.metrics import measure, ranked
from prorank.reranker import Reranker

if TYPE_CHECKING:
    from prorank.training.refine.lists import ListSource
    from prorank.training.refine.loop import OnEval

__all__ = ["first_stage_scores", "held_out_evaluation"]


def held_out_evaluation(sources: Sequence[ListSource], queries: int, top_k: int) -> OnEval:
    """Mean nDCG@10 over held-out queries of every source (the same number of each, so each weighs the same).

    Returns:
        A function of the reranker; its values: ``nDCG@10``, and with several sources ``nDCG@10/NAME``.
    """
    each = max(1, queries // len(sources))
    chosen = [(s, ids) for s in sources if (ids := _judged_held_out(s)[:each])]

    def on_eval(reranker: Reranker) -> Mapping[str, float]:
        values: dict[str, float] = {}
        for source, query_ids in chosen:
            collection = source.collection
            run = {}
            for query_id in query_ids:
                doc_ids = list(source.candidates[query_id])[:top_k]
                texts = [collection.documents[d].content for d in doc_ids]
                margins = reranker.margins(collection.queries[query_id].text, texts, instruction=source.instruction)
                run[query_id] = ranked(doc_ids, margins)
            qrels = {query_id: collection.qrels[query_id] for query_id in query_ids}
            values[f"nDCG@10/{collection.name}"] = measure(run, qrels, ["nDCG@10"]).mean("nDCG@10")
        if not values:  # no judgments to measure by: every checkpoint is as good as the last
            return {}
        mean = sum(values.values()) / len(values)
        return {"nDCG@10": mean, **(values if len(values) > 1 else {})}

    return on_eval


def first_stage_scores(sources: Sequence[ListSource], queries: int) -> Mapping[str, float]:
    """What the candidates' own order scores on the very queries of :func:`held_out_evaluation`."""
    each = max(1, queries // len(sources))
    values = []
    for source in sources:
        ids = _judged_held_out(source)[:each]
        if ids:
            run = {q: dict(source.candidates[q]) for q in ids}
            qrels = {q: source.collection.qrels[q] for q in ids}
            values.append(measure(run, qrels, ["nDCG@10"]).mean("nDCG@10"))
    return {"nDCG@10": sum(values) / len(values)} if values else {}


def _judged_held_out(source: ListSource) -> list[str]:
    """Held-out queries with judgments and candidates, in an order that does not depend on the file's."""
    qrels = source.collection.qrels
    ids = [q for q in source.held_out_ids if qrels.get(q) and source.candidates.get(q)]
    return sorted(ids, key=lambda q: hashlib.sha256(q.encode()).hexdigest())
