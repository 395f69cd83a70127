"""Training files as other tools write them: every text arrives, on the right side, or the line is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prorank.data import load_collection
from prorank.data.collection import Collection
from prorank.types import Document

Rows = Callable[..., Collection]


@pytest.fixture
def load(tmp_path: Path) -> Rows:
    def write(*rows: dict[str, Any]) -> Collection:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_collection(path)

    return write


def judged(collection: Collection, query_id: str = "q1") -> dict[str, int]:
    return {collection.documents[d].text: r for d, r in collection.qrels[query_id].items()}


@pytest.mark.parametrize(
    "row",
    [
        {"query": "q", "positive": "p", "negative": ["a", "b"]},
        {"query": "q", "positive": "p", "negative_1": "a", "negative_2": "b"},
        {"query": "q", "positive": "p", "negative_1": "a", "negative_2": "b", "negative_3": None},
        {"query": "q", "positive": "p", "negative_1": "a", "negative_2": "b", "negative_3": float("nan")},
        {"query": "q", "positive_1": "p", "negative1": "a", "negative-2": "b"},
        {"query": "q", "positive": "p", "hard_negatives": ["a", "b"]},
        {"query": "q", "positive": "p", "negative": "a", "hard_negative": "b"},
        {"query": "q", "answer": "p", "hard_negative_1": "a", "hard_negative_2": "b"},
        {"anchor": "q", "positive": "p", "negative": ["a", "b"]},
        {"query": "q", "pos": ["p"], "neg": ["a", "b"], "pos_scores": [], "neg_scores": None, "type": "x"},
        {"Query": "q", "Positive": "p", "Negatives": ["a", "b"]},
        {"query": "q", "positive": ["p", "a", "b"], "labels": [1, 0, 0]},  # sentence-transformers' labeled-list
        {"query": "q", "docs": ["p", "a", "b"], "labels": [1, 0, 0]},
        {
            "question": "q", "answers": ["x"], "positive_ctxs": [{"title": "", "text": "p", "score": 3.0}],
            "negative_ctxs": [], "hard_negative_ctxs": [{"text": "a"}, {"text": "b"}],
        },
    ],
)  # fmt: skip
def test_every_spelling_gives_the_same_judgments(load: Rows, row: dict[str, Any]) -> None:
    loaded = load(row)
    assert [query.text for query in loaded.queries.values()] == ["q"]
    assert judged(loaded) == {"p": 1, "a": 0, "b": 0}
    assert loaded.candidates is not None
    assert set(loaded.candidates["q1"]) == set(loaded.qrels["q1"])


def test_ten_numbered_negatives_keep_their_order(load: Rows) -> None:
    numbered = {f"negative_{n}": f"n{n}" for n in (10, 2, 1)}
    loaded = load({"query": "q", "positive": "p", **numbered})
    assert loaded.candidates is not None
    assert [loaded.documents[d].text for d in loaded.candidates["q1"]] == ["p", "n1", "n2", "n10"]


def test_tevatron_rows_keep_ids_and_titles(load: Rows) -> None:
    loaded = load(
        {
            "query_id": "7", "query": "q", "positive_passages": [{"docid": "a", "title": "T", "text": "x"}],
            "negative_passages": [{"docid": 5, "title": None, "text": "y"}],
        }
    )  # fmt: skip
    assert loaded.qrels == {"7": {"a": 1, "5": 0}}
    assert dict(loaded.documents) == {"a": Document("a", "x", "T"), "5": Document("5", "y")}


@pytest.mark.parametrize(
    "scores", [{"pos_scores": [9], "neg_scores": [1, 4.5]}, {"scores": [9, 1, 4.5]}, {"score": [9, 1, 4.5]}]
)
def test_teachers_scores_become_the_candidates(load: Rows, scores: dict[str, Any]) -> None:
    loaded = load({"query": "q", "pos": ["p"], "neg": ["a", "b"], **scores, "pos_id": ["P"], "neg_id": ["A", None]})
    assert loaded.candidates is not None
    assert list(loaded.candidates["q1"].items()) == [("P", 9.0), ("d1", 4.5), ("A", 1.0)]


def test_labelled_pairs_are_not_all_positive(load: Rows) -> None:
    loaded = load({"query": "q", "positive": "p", "label": 1}, {"query": "q", "positive": "a", "label": 0})
    assert judged(loaded) == {"p": 1, "a": 0}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"positive": "p", "negativ_1": "n"}, "'negativ_1' is not understood"),
        ({"positive": "p", "neg_text_a": "n"}, "'neg_text_a' is not understood"),
        ({"positive": "p", "hard_negs_bm25": ["n"]}, "'hard_negs_bm25' is not understood"),
        ({"pos": ["p"], "positive_urls": ["u"]}, "'positive_urls' is not understood"),
        ({"positive_document_ids": ["1"], "negative_document_ids": ["2"]}, "'positive_document_ids' is not understood"),
        ({"pos_ids": ["1"]}, "expected 'documents', or 'positive' and 'negative'"),
        ({"documents": ["a"], "negatives": ["b"]}, "either 'documents' or 'negatives', got both"),
        ({"pos": ["p"], "neg": ["a"], "neg_scores": [1, 2]}, r"'neg_scores' must be a list as long as 'neg' \(1\)"),
        ({"positive": ["p", "a"], "scores": [2, 1]}, "give 'labels', too"),
        ({"positive": "p", "Positive": "q"}, "two fields are named 'positive'"),
        ({"documents": ["a"], "labels": [[1]]}, "relevance must be an integer"),
        ({"documents": ["a"], "labels": [10**400]}, "relevance must be an integer"),
        ({"documents": ["a"], "scores": [10**400]}, "finite"),
        ({"documents": ["a"], "labels": [float("inf")]}, "relevance must be an integer"),
        ({"documents": ["a"], "scores": [[1]]}, "finite"),
        ({"positive": {"text": "p", "title": ["x"]}}, "'title' must be a string or a number, got list"),
        ({"positive": {"text": "p", "_id": {"$oid": "x"}}}, "'_id' must be a string or a number, got dict"),
    ],
)
def test_what_is_not_understood_is_refused(load: Rows, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"rows.jsonl:2: .*{reason}"):
        load({"query": "q", "positive": "p"}, {"query": "r", **row})


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"query": "q", "positive": "p", "positive": "x"}\n')
    with pytest.raises(ValueError, match=r"r.jsonl:1: the key 'positive' comes twice"):
        load_collection(tmp_path / "r.jsonl")


def test_a_positive_that_is_a_negative_too_stays_positive(load: Rows, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = load(
            {"query": "q", "pos": ["p"], "neg": ["a", "p"]},  # in one row
            {"query": "q", "pos": ["a"], "neg": ["b"]},  # across rows
            {"query": "q", "pos": [{"_id": "x", "text": "c"}], "neg": [{"_id": "y", "text": "c"}]},  # under two ids
            {"query": "r", "pos": ["b"], "neg": ["a"]},  # another query's business
        )
    assert judged(loaded) == {"p": 1, "a": 1, "b": 0, "c": 1}
    assert judged(loaded, "q2") == {"b": 1, "a": 0}
    assert loaded.candidates is not None
    assert set(loaded.candidates["q1"]) == set(loaded.qrels["q1"])
    assert [r.getMessage().split(": ")[1] for r in caplog.records] == [
        "dropped 3 negatives whose text is also a positive of the same query"
    ]


def test_one_dropped_negative_is_said_in_the_singular(load: Rows, caplog: pytest.LogCaptureFixture) -> None:
    load({"query": "q", "pos": ["p"], "neg": ["p"]})
    assert "dropped 1 negative whose" in caplog.text


def test_two_grades_above_zero_are_still_refused(load: Rows) -> None:
    with pytest.raises(ValueError, match=r"rows.jsonl:2: .*judged twice, differently"):
        load({"query": "q", "documents": ["a"], "labels": [1]}, {"query": "q", "documents": ["a"], "labels": [2]})


def test_an_id_that_is_null_is_none(load: Rows) -> None:
    loaded = load({"query": {"query_id": None, "text": "q"}, "documents": [{"doc_id": None, "text": "a"}, "b"]})
    assert list(loaded.documents) == ["d1", "d2"]
    assert list(loaded.queries) == ["q1"]


def test_numbered_ids_keep_clear_of_given_ones(load: Rows) -> None:
    loaded = load(
        {"query": "first", "positive": "a", "negative": [{"_id": "d1", "text": "b"}, "c", {"_id": "d3", "text": "d"}]},
        {"query": {"query_id": "q1", "text": "second"}, "positive": "a", "negative": "c"},
    )
    assert {d: document.text for d, document in loaded.documents.items()} == {
        "d2": "a",
        "d1": "b",
        "d4": "c",
        "d3": "d",
    }
    assert {q: query.text for q, query in loaded.queries.items()} == {"q2": "first", "q1": "second"}
    assert loaded.qrels == {"q2": {"d2": 1, "d1": 0, "d4": 0, "d3": 0}, "q1": {"d2": 1, "d4": 0}}
