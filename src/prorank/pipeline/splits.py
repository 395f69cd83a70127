"""Which queries of a collection train, which test, and whose candidates a model puts in order anew."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prorank.data.collection import Collection
from prorank.model.options import LoadOptions
from prorank.pipeline.datasets import Prepared
from prorank.training.refine.config import RefineConfig

__all__ = ["remined", "shortened", "split_off"]


def remined(one: Prepared, options: LoadOptions, queries: int, config: RefineConfig, folder: Path) -> Prepared:
    """Training candidates in the order that the model gives them now: its own mistakes come first.

    Args:
        options: the model, and how to load it.
        queries: so many training queries, chosen by the hash of their ids, are scored and trained on; the held-out ones
            keep the first stage's candidates.
        config: of the block to come; candidates down to ``hard_rank_to`` are scored.
        folder: keeps the scores, so that an interrupted run goes on.
    """
    from prorank.evaluate.systems import RerankerSystem
    from prorank.pipeline.teachers import scored_candidates
    from prorank.reranker import Reranker
    from prorank.training.held_out import is_held_out
    from prorank.training.setup import with_limits

    if not one.candidates:
        return one
    mine = [q for q in one.candidates if one.candidates[q] and q in one.collection.queries]
    held_out = {q for q in mine if is_held_out(q, config.held_out)}
    training = [q for q in mine if q not in held_out]
    chosen = sorted(training, key=_place)[:queries]
    listed = {q: dict(list(one.candidates[q].items())[: config.hard_rank_to]) for q in chosen}
    reranker = Reranker.load(options)
    reranker.encoder = with_limits(reranker.encoder, config, [one.spec.instruction])
    system = RerankerSystem(reranker, instruction=one.spec.instruction)
    scored = scored_candidates(system, _only(one.collection, chosen), listed, folder / one.collection.name)
    kept = [q for q in one.collection.queries if q in held_out or q in scored]
    candidates = {q: scored.get(q, one.candidates.get(q, {})) for q in kept}
    return replace(one, collection=_only(one.collection, kept), candidates=candidates)


def split_off(prepared: Sequence[Prepared], share: float) -> tuple[list[Prepared], list[Collection]]:
    """Take test queries, chosen by the hash of their ids, out of every judged collection.

    Raises:
        ValueError: a collection has too few judged queries for it.
    """
    kept, tests = [], []
    for one in prepared:
        judged = [q for q in one.collection.queries if any(r > 0 for r in one.collection.qrels.get(q, {}).values())]
        test = {q for q in judged if _place(q) < share}
        if len(test) < 2 or len(judged) - len(test) < 2:
            raise ValueError(
                f"test_share: {one.collection.name} has {len(judged)} queries with a relevant document; {share} of "
                "them leaves too few to train or to test on; give more queries, or a test set"
            )
        kept.append(
            replace(one, collection=_only(one.collection, [q for q in one.collection.queries if q not in test]))
        )
        tests.append(_only(one.collection, [q for q in judged if q in test]))
    return kept, tests


def _place(query_id: str) -> float:
    """A number from 0 to 1 that depends on the id alone, and not on what decides the held-out queries of training."""
    return int(hashlib.sha256(f"test:{query_id}".encode()).hexdigest()[:8], 16) / 0x100000000


def _only(collection: Collection, query_ids: Sequence[str]) -> Collection:
    return replace(
        collection,
        queries={q: collection.queries[q] for q in query_ids},
        qrels={q: collection.qrels[q] for q in query_ids if q in collection.qrels},
    )


def shortened(test: Collection, queries: int) -> Collection:
    """At most so many judged queries, chosen by the hash of their ids."""
    judged = [q for q in test.queries if q in test.qrels]
    return _only(test, sorted(sorted(judged, key=_place)[:queries]))
