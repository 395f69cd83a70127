"""AnswerDotAI's rerankers: its results, documents and factory, with our margins."""

from __future__ import annotations

from typing import Any

import pytest

from prorank import Reranker

library = pytest.importorskip("rerankers", reason="rerankers is part of the group 'ecosystem'")

from prorank.integrations.rerankers import ProRankRanker, register  # noqa: E402

TEXTS = ["bread is baked", "vaccines train the immune system", "", "memory cells", "a town"]
QUERY = "how do vaccines work"


def test_ranks_as_the_librarys_own_rankers_do(reranker: Reranker) -> None:
    from rerankers.models.ranker import BaseRanker

    ranker = ProRankRanker(reranker=reranker)
    assert isinstance(ranker, BaseRanker)
    wanted = [(r.index, r.margin) for r in reranker.rank(QUERY, TEXTS)]
    found = ranker.rank(QUERY, TEXTS)
    assert [(r.doc_id, r.score) for r in found] == wanted
    assert [r.rank for r in found] == [1, 2, 3, 4, 5]
    assert (found.query, found.has_scores, found.results_count()) == (QUERY, True, 5)
    assert [r.doc_id for r in found.top_k(2)] == [index for index, _ in wanted[:2]]
    assert found.get_score_by_docid(wanted[3][0]) == wanted[3][1]
    assert ranker.score(QUERY, TEXTS[1]) == dict(wanted)[1]
    assert ranker.rank(QUERY, []).results == []
    assert ranker.rank(QUERY, TEXTS[0])[0].text == TEXTS[0]


def test_ids_metadata_and_documents_come_back(reranker: Reranker) -> None:
    from rerankers import Document

    ranker, ids = ProRankRanker(reranker=reranker, instruction="Recent ones."), list("abcde")
    wanted = [ids[r.index] for r in reranker.rank(QUERY, TEXTS, instruction="Recent ones.")]
    found = ranker.rank(QUERY, TEXTS, doc_ids=ids, metadata=[{"n": one} for one in ids])
    assert [r.doc_id for r in found] == wanted == [r.n for r in found]
    given = [Document(text, doc_id=one) for text, one in zip(TEXTS, ids, strict=True)]
    assert [r.doc_id for r in ranker.rank(QUERY, given)] == wanted
    with pytest.raises(ValueError, match="doc_ids: expected one for each of 5 documents, got 2"):
        ranker.rank(QUERY, TEXTS, doc_ids=["a", "b"])
    with pytest.raises(ValueError, match="document_type 'image'"):
        ranker.rank(QUERY, [Document(document_type="image", image_path="x.png")])


async def test_async(reranker: Reranker) -> None:
    found = await ProRankRanker(reranker=reranker).rank_async(QUERY, TEXTS)
    assert [r.doc_id for r in found] == [r.index for r in reranker.rank(QUERY, TEXTS)]


def test_the_librarys_factory_makes_one(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    from rerankers.models import AVAILABLE_RANKERS

    monkeypatch.delitem(AVAILABLE_RANKERS, "ProRankRanker", raising=False)
    register()
    options: dict[str, Any] = {"model_type": "ProRankRanker", "verbose": 0, "reranker": reranker}
    ranker = library.Reranker("prorank-smollm2-135m", **options)
    assert isinstance(ranker, ProRankRanker)
    assert [r.doc_id for r in ranker.rank(QUERY, TEXTS)] == [r.index for r in reranker.rank(QUERY, TEXTS)]
    monkeypatch.delitem(AVAILABLE_RANKERS, "ProRankRanker")
