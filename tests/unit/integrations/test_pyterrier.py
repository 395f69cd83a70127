"""PyTerrier: the transformer in its pipelines, by its operators; the rest of a frame stays."""

from __future__ import annotations

from typing import Any

import pytest

from prorank import Reranker

pt = pytest.importorskip("pyterrier", reason="pyterrier is part of the group 'ecosystem'")
pd = pytest.importorskip("pandas")

from prorank.integrations.pyterrier import ProRankTransformer  # noqa: E402

QUERIES = {"q2": "how do vaccines work", "q1": "bread"}
TEXTS = {"d1": "bread is baked", "d2": "vaccines train the immune system", "d3": "", "d4": "memory cells"}


@pytest.fixture
def results() -> Any:
    """Two queries' lists, in which no order is the rank's."""
    rows = [
        {"qid": q, "query": text, "docno": d, "text": TEXTS[d], "score": -float(i), "rank": i, "url": f"u/{d}"}
        for q, text in QUERIES.items()
        for i, d in ((2, "d3"), (0, "d1"), (3, "d4"), (1, "d2"))
    ]
    return pd.DataFrame(rows)


def wanted(reranker: Reranker, query: str, docnos: list[str], **options: Any) -> list[tuple[str, float]]:
    return [(docnos[r.index], r.margin) for r in reranker.rank(query, [TEXTS[d] for d in docnos], **options)]


def test_a_transformer_of_results(reranker: Reranker, results: Any) -> None:
    before = results.copy()
    found = ProRankTransformer(reranker)(results)
    pd.testing.assert_frame_equal(results, before)
    assert set(found.columns) == set(before.columns)
    for query_id, text in QUERIES.items():
        rows = found[found.qid == query_id]
        assert list(zip(rows.docno, rows.score, strict=True)) == wanted(reranker, text, ["d1", "d2", "d3", "d4"])
        assert list(rows["rank"]) == [0, 1, 2, 3]
        assert list(rows.url) == [f"u/{d}" for d in rows.docno]


def test_it_stands_in_pipelines(reranker: Reranker, results: Any) -> None:
    first = pt.Transformer.from_df(results)
    topics = pd.DataFrame([{"qid": q, "query": text} for q, text in QUERIES.items()])
    best = (first % 2 >> ProRankTransformer(reranker, instruction="Recent ones."))(topics)
    for query_id, text in QUERIES.items():
        rows = best[best.qid == query_id]
        assert list(rows.docno) == [d for d, _ in wanted(reranker, text, ["d1", "d2"], instruction="Recent ones.")]
    qrels = pd.DataFrame([{"qid": "q1", "docno": "d1", "label": 1}, {"qid": "q2", "docno": "d2", "label": 1}])
    table = pt.Experiment(
        [first, first >> ProRankTransformer(reranker)], topics, qrels, ["recip_rank"], names=list("ab")
    )
    places = [
        [d for d, _ in wanted(reranker, QUERIES[q], ["d1", "d2", "d3", "d4"])].index(d)
        for q, d in (("q1", "d1"), ("q2", "d2"))
    ]
    assert table.recip_rank[1] == pytest.approx(sum(1 / (place + 1) for place in places) / 2)
    assert repr(ProRankTransformer(model="some-model")) == "ProRankTransformer('some-model')"


def test_its_columns_are_known_and_no_model_is_loaded_for_them(results: Any) -> None:
    lazy = ProRankTransformer(model="there-is-no-such-model")
    assert set(pt.inspect.transformer_outputs(lazy, list(results.columns))) == set(results.columns)
    assert len(lazy(results.iloc[:0])) == 0
    with pytest.raises(pt.validate.InputValidationError, match="text"):
        lazy(results.drop(columns="text"))


def test_equal_margins_keep_the_first_stages_rank(reranker: Reranker, results: Any) -> None:
    same = results.assign(text="the same")
    found = ProRankTransformer(reranker)(same)
    assert list(found[found.qid == "q1"].docno) == ["d1", "d2", "d3", "d4"]
