"""ranx and ir_measures: runs there and back, and the same figures as ours on a real collection's BM25 lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prorank import RankResult, Reranker
from prorank.evaluate.metrics import measure
from prorank.integrations.runs import plain_run
from prorank.ranking import Ranking
from prorank.types import Run

ir_measures = pytest.importorskip("ir_measures", reason="ir-measures is part of the extra 'evaluate'")

QUERIES = 60
OURS = ["nDCG@10", "RR@10", "AP", "R@100", "P@10"]
RANX = ["ndcg@10", "mrr@10", "map", "recall@100", "precision@10"]


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[dict[str, dict[str, int]], Run]:
    """NFCorpus: judgments of its first test queries, and a run with ties: BM25's scores to one digit."""
    from prorank.data import first_stage, load_collection

    collection = load_collection(str(shared_data / "nfcorpus"), "test")
    listed = first_stage("bm25", collection, 100)
    qrels = {q: dict(collection.qrels[q]) for q in list(collection.qrels)[:QUERIES]}
    run = {q: {d: round(s, 1) for d, s in listed[q].items()} for q in qrels if listed.get(q)}
    assert any(len(set(found.values())) < len(found) for found in run.values())
    return qrels, run


def test_scores_fall_strictly_and_stay_what_they_were() -> None:
    run = {"q": {"b": 2.0, "a": 2.0, "z": 2.0, "c": -1.5}, "none": {}}
    plain = plain_run(run)
    scores = list(plain["q"].values())
    assert list(plain["q"]) == ["b", "a", "z", "c"]
    assert scores == sorted(set(scores), reverse=True)
    np.testing.assert_allclose(scores, [2, 2, 2, -1.5], rtol=1e-6)
    assert len(set(np.float32(scores))) == 4, "trec_eval keeps scores in 32 bits"
    with pytest.raises(ValueError, match="query 'q': the scores rise"):
        plain_run({"q": {"a": 1.0, "b": 2.0}})
    twice = Ranking([RankResult(0, "a", 1.0, 0.7), RankResult(1, "a", 0.5, 0.6)])
    with pytest.raises(ValueError, match="twice"):
        plain_run({"q": twice})


def test_ir_measures_gives_our_figures(real: tuple[dict[str, dict[str, int]], Run]) -> None:
    from prorank.integrations import ir_measures as adapter

    qrels, run = real
    ours = measure(run, qrels, OURS)
    measures = [ir_measures.parse_measure(name) for name in OURS]
    theirs = ir_measures.calc_aggregate(measures, adapter.to_qrels(qrels), adapter.to_run(run))
    for name, one in zip(OURS, measures, strict=True):
        assert theirs[one] == pytest.approx(ours.mean(name), abs=1e-6), name
    back = adapter.from_run(adapter.to_run(run))
    assert {q: list(found) for q, found in back.items()} == {q: list(found) for q, found in run.items()}


def test_rankings_become_scored_documents(reranker: Reranker) -> None:
    from prorank.integrations import ir_measures as adapter

    ranking = reranker.rank("bread", [{"id": "x", "text": "bread"}, {"id": "y", "text": "a town"}])
    assert adapter.to_run({"q": ranking}) == [ir_measures.ScoredDoc("q", r.doc_id, r.margin) for r in ranking]


def test_ranx_gives_our_figures(real: tuple[dict[str, dict[str, int]], Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes minutes, these few queries seconds
    ranx = pytest.importorskip("ranx", reason="ranx is part of the group 'ecosystem-heavy'")
    from prorank.integrations import ranx as adapter

    qrels, run = real
    ours = measure(run, qrels, OURS)
    theirs = ranx.evaluate(adapter.to_qrels(qrels), adapter.to_run(run), RANX, make_comparable=True)
    for name, other in zip(OURS, RANX, strict=True):
        assert theirs[other] == pytest.approx(ours.mean(name), abs=1e-6), name
    back = adapter.from_run(adapter.to_run(run))
    assert {q: list(found) for q, found in back.items()} == {q: list(found) for q, found in run.items()}
    with pytest.raises(ValueError, match="no query with a document"):
        adapter.to_run({"q": {}})
