"""What a reranker answers: thresholds, what they leave out, and the same numbers from the client and the server."""

from __future__ import annotations

import io
import json
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from prorank import Reranker
from prorank.ranking import Ranking, Thresholds

TEXTS = [f"document {i}" for i in range(20)]


def test_thresholds_leave_out_and_count(fake_reranker: Reranker) -> None:
    everything = fake_reranker.rank("q", TEXTS)
    assert everything.left_out == 0
    seventh = everything[6]
    for options in ({"min_margin": seventh.margin}, {"min_score": seventh.probability}):
        kept = fake_reranker.rank("q", TEXTS, **options)
        assert kept == everything[:7], "the threshold itself is kept"
        assert kept.left_out == 13
        few = fake_reranker.rank("q", TEXTS, top_k=3, **options)
        assert (few, few.left_out) == (everything[:3], 13), "what top_k cuts off is not left out"
    both = fake_reranker.rank("q", TEXTS, min_margin=seventh.margin, min_score=everything[1].probability)
    assert (both, both.left_out) == (everything[:2], 18)
    nothing = fake_reranker.rank("q", TEXTS, min_margin=np.float32(1e6))
    assert (nothing, nothing.left_out) == ([], 20)
    assert fake_reranker.rank("q", [], min_score=0.5).left_out == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 1.5}, "min_score must be a probability from 0 to 1, got 1.5"),
        ({"min_score": -0.1}, "min_score must be"),
        ({"min_score": float("nan")}, "min_score must be"),
        ({"min_score": "0.5"}, "min_score must be"),
        ({"min_score": True}, "min_score must be"),
        ({"min_margin": float("inf")}, "min_margin must be a finite number, got inf"),
        ({"min_margin": "3"}, "min_margin must be"),
    ],
)
def test_thresholds_that_are_none_are_named(fake_reranker: Reranker, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fake_reranker.rank("q", ["a"], **options)
    with pytest.raises(ValueError, match=message):
        Thresholds.checked(**options)


def test_a_ranking_is_a_list_and_converts(fake_reranker: Reranker) -> None:
    ranked = fake_reranker.rank("q", ["a", {"_id": "x", "text": "b"}], return_chunks=True)
    assert isinstance(ranked, list)
    assert ranked == list(ranked)
    rows = ranked.to_dicts()
    assert [row["rank"] for row in rows] == [1, 2]
    first = ranked[0]
    assert rows[0] == {
        "rank": 1, "index": first.index, "doc_id": first.doc_id, "margin": first.margin,
        "probability": first.probability, "text": first.text,
        "chunk": {"text": first.text, "start": 0, "end": 1},
    }  # fmt: skip
    assert json.loads(json.dumps(rows)) == rows
    assert "text" not in fake_reranker.rank("q", ["a"], return_documents=False).to_dicts()[0]


def test_a_ranking_as_a_frame(fake_reranker: Reranker) -> None:
    pytest.importorskip("pandas")
    ranked = fake_reranker.rank("q", TEXTS, top_k=3)
    frame = ranked.to_dataframe()
    assert list(frame.columns) == ["rank", "index", "doc_id", "margin", "probability", "text"]
    assert frame.to_dict("records") == ranked.to_dicts()
    assert list(Ranking().to_dataframe().columns) == ["rank", "index", "doc_id", "margin", "probability"]


def test_a_ranking_as_a_run_is_what_ir_measures_reads(fake_reranker: Reranker) -> None:
    ir_measures = pytest.importorskip("ir_measures")
    ranked = fake_reranker.rank("q", TEXTS)
    run = list(ir_measures.read_trec_run(io.StringIO(ranked.to_trec("q1"))))
    assert [(row.query_id, row.doc_id, row.score) for row in run] == [("q1", r.doc_id, r.margin) for r in ranked]
    assert Ranking().to_trec("q1") == ""
    with pytest.raises(ValueError, match="white space"):
        ranked.to_trec("q 1")


def test_an_iterator_is_ranked_in_bounded_memory(fake_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prorank.reranker._BLOCK", 7)
    alive: list[weakref.ref[str]] = []
    most = 0

    class Text(str):
        """A string that can be watched."""

    def texts() -> Iterator[dict[str, str]]:
        nonlocal most
        for text in TEXTS * 5:
            one = Text(text)
            alive.append(weakref.ref(one))
            most = max(most, sum(ref() is not None for ref in alive))
            yield {"text": one}

    limit = fake_reranker.rank("q", TEXTS)[14].margin
    wanted = fake_reranker.rank("q", TEXTS * 5, top_k=8, min_margin=limit)
    got = fake_reranker.rank("q", texts(), top_k=8, min_margin=limit)
    assert (got, got.left_out) == (wanted, wanted.left_out)
    assert got.left_out == 25
    assert most < 30, "a block, the results, and what the loop still holds"
    assert fake_reranker.rank("q", iter(TEXTS)) == fake_reranker.rank("q", TEXTS)
    with pytest.raises(ValueError, match="document 9: expected"):
        fake_reranker.rank("q", iter([*TEXTS[:9], 5]), top_k=1)  # type: ignore[list-item]
    assert fake_reranker.rank("q", iter([]), top_k=1) == []
