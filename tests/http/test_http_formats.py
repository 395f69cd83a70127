"""Every wire format: its fields, its defaults, its error body, and the same scores in all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from standin import StandIn
from starlette.testclient import TestClient

QUERY = "how do vaccines create immunity"
DOCUMENTS = ["cells remember", "the weather is fine today", "a vaccine shows the body a harmless piece", "bread"]


def expected(reranker: StandIn) -> list[tuple[int, float]]:
    scores = reranker.probability(reranker.margins(QUERY, DOCUMENTS))
    return [(i, float(scores[i])) for i in reranker.order(QUERY, DOCUMENTS)]


def ok(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def test_jina_gives_documents_back_by_default_and_counts_tokens(http: TestClient, reranker: StandIn) -> None:
    body = {"model": "fake", "query": QUERY, "documents": DOCUMENTS}
    answer = ok(http.post("/v1/rerank", json=body))
    assert answer["model"] == "fake"
    assert answer["object"] == "rerank"
    assert answer["usage"]["total_tokens"] > 0
    assert [(row["index"], row["relevance_score"]) for row in answer["results"]] == expected(reranker)
    assert [row["document"] for row in answer["results"]] == [{"text": DOCUMENTS[i]} for i, _ in expected(reranker)]
    assert "margin" not in answer["results"][0]


def test_v1_takes_objects_top_n_and_gives_other_fields_back(http: TestClient, reranker: StandIn) -> None:
    documents = [{"text": text, "page": place} for place, text in enumerate(DOCUMENTS)]
    answer = ok(http.post("/v1/rerank", json={"query": QUERY, "documents": documents, "top_n": 2}))
    assert [row["index"] for row in answer["results"]] == reranker.order(QUERY, DOCUMENTS)[:2]
    assert answer["results"][0]["document"] == documents[answer["results"][0]["index"]]


def test_v1_rank_fields_choose_what_is_read(http: TestClient, reranker: StandIn) -> None:
    documents = [{"text": "a", "title": "first"}, {"text": "b", "title": "second"}]
    body = {"query": QUERY, "documents": documents, "rank_fields": ["title", "text"], "raw_scores": True}
    answer = ok(http.post("/v1/rerank", json=body))
    margins = reranker.margins(QUERY, ["title: first\ntext: a", "title: second\ntext: b"])
    assert {row["index"]: row["relevance_score"] for row in answer["results"]} == dict(enumerate(map(float, margins)))


def test_v1_objects_need_no_text_where_rank_fields_name_others(http: TestClient, reranker: StandIn) -> None:
    documents = [{"title": "Bread", "body": "needs flour"}, {"body": "trains it", "year": 2021, "n": None}, "plain"]
    body = {"query": QUERY, "documents": documents, "rank_fields": ["body", "year", "title", "n"], "raw_scores": True}
    answer = ok(http.post("/v1/rerank", json=body))
    margins = reranker.margins(QUERY, ["body: needs flour\ntitle: Bread", "body: trains it\nyear: 2021", "plain"])
    assert scores_of(answer) == dict(enumerate(map(float, margins)))
    given = {row["index"]: row["document"] for row in answer["results"]}
    assert given == {0: documents[0], 1: documents[1], 2: {"text": "plain"}}


def test_a_text_that_is_missing_names_both_ways_out(http: TestClient) -> None:
    said = http.post("/v1/rerank", json={"query": "q", "documents": [{"title": "t"}]}).json()["detail"]
    assert said == "documents.0: expected a string under text; or name the fields to read in rank_fields"


@pytest.mark.parametrize(
    ("path", "name", "values"),
    [
        ("/v1/rerank", "top_n", (0, 0.0, None, 99)),
        ("/rerank", "top_n", (0, None, 99)),
        ("/infinity/rerank", "top_n", (0, -1, -7.0, None, 99)),
        ("/v2/rerank", "top_n", (None, 99)),
        ("/voyage/v1/rerank", "top_k", (None, 99)),
    ],
)
def test_all_documents_by_each_services_word_for_it(
    http: TestClient, reranker: StandIn, path: str, name: str, values: tuple[float | None, ...]
) -> None:
    for value in values:
        answer = ok(http.post(path, json={"query": QUERY, "documents": DOCUMENTS, name: value}))
        assert list(scores_of(answer)) == reranker.order(QUERY, DOCUMENTS), value


@pytest.mark.parametrize(("path", "name"), [("/v2/rerank", "top_n"), ("/voyage/v1/rerank", "top_k")])
def test_none_at_all_stays_refused_at_cohere_and_voyage(http: TestClient, path: str, name: str) -> None:
    response = http.post(path, json={"query": QUERY, "documents": DOCUMENTS, name: 0})
    assert response.status_code == 400
    assert name in response.text


def test_v1_without_documents_back(http: TestClient) -> None:
    answer = ok(http.post("/v1/rerank", json={"query": "q", "documents": ["a"], "return_documents": False}))
    assert "document" not in answer["results"][0]


def test_llama_cpp_texts_and_list_object(http: TestClient, reranker: StandIn) -> None:
    answer = ok(http.post("/v1/rerank", json={"query": QUERY, "texts": DOCUMENTS, "top_n": 3}))
    assert answer["object"] == "list"
    assert [row["index"] for row in answer["results"]] == reranker.order(QUERY, DOCUMENTS)[:3]


def test_infinity_gives_no_documents_by_default_and_plain_ones_when_asked(http: TestClient, reranker: StandIn) -> None:
    answer = ok(http.post("/infinity/rerank", json={"query": QUERY, "documents": DOCUMENTS}))
    assert answer["object"] == "rerank"
    assert "document" not in answer["results"][0]
    answer = ok(http.post("/infinity/rerank", json={"query": QUERY, "documents": DOCUMENTS, "return_documents": True}))
    assert [row["document"] for row in answer["results"]] == [DOCUMENTS[i] for i in reranker.order(QUERY, DOCUMENTS)]


def test_cohere_v2(http: TestClient, reranker: StandIn) -> None:
    answer = ok(http.post("/v2/rerank", json={"model": "rerank-v3.5", "query": QUERY, "documents": DOCUMENTS}))
    assert set(answer) == {"id", "results", "meta"}
    assert answer["meta"]["api_version"]["version"] == "2"
    assert [(row["index"], row["relevance_score"]) for row in answer["results"]] == expected(reranker)
    assert set(answer["results"][0]) == {"index", "relevance_score"}


def test_cohere_max_tokens_per_doc_cuts_documents(http: TestClient, reranker: StandIn) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "max_tokens_per_doc": 2, "raw_scores": True}
    answer = ok(http.post("/v2/rerank", json=body))
    margins = reranker.margins(QUERY, [" ".join(text.split()[:2]) for text in DOCUMENTS])
    assert {row["index"]: row["relevance_score"] for row in answer["results"]} == dict(enumerate(map(float, margins)))


def test_voyage(http: TestClient, reranker: StandIn) -> None:
    body = {"model": "rerank-2", "query": QUERY, "documents": DOCUMENTS, "top_k": 2}
    answer = ok(http.post("/voyage/v1/rerank", json=body))
    assert answer["object"] == "list"
    assert answer["usage"]["total_tokens"] > 0
    assert [(row["index"], row["relevance_score"]) for row in answer["data"]] == expected(reranker)[:2]
    assert "document" not in answer["data"][0]
    with_texts = ok(http.post("/voyage/v1/rerank", json=body | {"return_documents": True}))
    assert [row["document"] for row in with_texts["data"]] == [DOCUMENTS[i] for i, _ in expected(reranker)[:2]]


def test_text_embeddings_inference(http: TestClient, reranker: StandIn) -> None:
    answer = ok(http.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS}))
    assert [(row["index"], row["score"]) for row in answer] == expected(reranker)
    assert "text" not in answer[0]
    raw = ok(http.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "return_text": True}))
    margins = reranker.margins(QUERY, DOCUMENTS)
    assert [(row["index"], row["score"], row["text"]) for row in raw] == [
        (i, float(margins[i]), DOCUMENTS[i]) for i in reranker.order(QUERY, DOCUMENTS)
    ]


def test_the_tei_path_answers_infinity_and_vllm_clients_too(http: TestClient, reranker: StandIn) -> None:
    answer = ok(http.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS}))
    assert [row["index"] for row in answer["results"]] == reranker.order(QUERY, DOCUMENTS)


def test_tei_refuses_long_texts_unless_told_to_cut(http: TestClient) -> None:
    long = "word " * 500
    refused = http.post("/rerank", json={"query": "q", "texts": ["short", long]})
    assert refused.status_code == 413
    assert refused.json()["error_type"] == "Validation"
    assert refused.json()["error"].startswith("1 text does not fit into 64 tokens")
    two = http.post("/rerank", json={"query": "q", "texts": [long, "short", long]})
    assert two.json()["error"].startswith("2 texts do not fit into 64 tokens")
    assert len(ok(http.post("/rerank", json={"query": "q", "texts": ["short", long], "truncate": True}))) == 2


def test_tei_cuts_by_itself_where_the_server_is_set_to(serve: Any, reranker: StandIn) -> None:
    http = serve(reranker, auto_truncate=True)
    body = {"query": "q", "texts": ["short", "word " * 500]}
    assert len(ok(http.post("/rerank", json=body))) == 2
    assert len(ok(http.post("/rerank", json=body | {"truncate": None}))) == 2
    assert http.post("/rerank", json=body | {"truncate": False}).status_code == 413
    documents = {"query": "q", "documents": body["texts"], "truncation": False}
    assert http.post("/voyage/v1/rerank", json=documents).status_code == 400, "only TEI's default changes"


@pytest.mark.parametrize(("direction", "keep_end"), [("Left", True), ("left", True), ("Right", False), (None, False)])
def test_tei_says_which_end_is_cut(http: TestClient, reranker: StandIn, direction: str | None, keep_end: bool) -> None:
    texts = ["short", " ".join(f"word{n}" for n in range(500))]
    body = {"query": "q", "texts": texts, "truncate": True, "truncation_direction": direction, "raw_scores": True}
    margins = reranker.margins("q", texts, keep_end=keep_end)
    assert scores_of(ok(http.post("/rerank", json=body))) == dict(enumerate(map(float, margins)))
    assert margins[1] != reranker.margins("q", texts, keep_end=not keep_end)[1]


def test_tei_refuses_a_direction_that_is_none(http: TestClient) -> None:
    response = http.post("/rerank", json={"query": "q", "texts": ["a"], "truncation_direction": "Middle"})
    assert response.status_code == 422
    assert response.json()["error"].startswith("truncation_direction: ")


def test_voyage_truncation_can_be_forbidden(http: TestClient) -> None:
    body = {"query": "q", "documents": ["word " * 500]}
    assert len(ok(http.post("/voyage/v1/rerank", json=body))["data"]) == 1
    assert http.post("/voyage/v1/rerank", json=body | {"truncation": False}).status_code == 400


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_vllm_score_one_text_against_many(http: TestClient, reranker: StandIn, path: str) -> None:
    answer = ok(http.post(path, json={"text_1": QUERY, "text_2": DOCUMENTS}))
    scores = reranker.probability(reranker.margins(QUERY, DOCUMENTS))
    assert [(row["index"], row["score"]) for row in answer["data"]] == list(enumerate(map(float, scores)))


def test_vllm_score_pairs_keep_their_order_whatever_is_grouped(http: TestClient, reranker: StandIn) -> None:
    pairs = [("a", "x"), ("b", "y"), ("a", "z"), ("b", "x"), ("c", "x")]
    body = {"text_1": [one for one, _ in pairs], "text_2": [two for _, two in pairs], "raw_scores": True}
    answer = ok(http.post("/v1/score", json=body))
    assert [row["score"] for row in answer["data"]] == [float(reranker.margins(q, [d])[0]) for q, d in pairs]


def test_equal_margins_keep_their_input_order(http: TestClient) -> None:
    answer = ok(http.post("/v2/rerank", json={"query": "q", "documents": ["same", "same", "same"]}))
    assert [row["index"] for row in answer["results"]] == [0, 1, 2]


BODIES: dict[str, dict[str, Any]] = {
    "/v1/rerank": {"query": QUERY, "documents": DOCUMENTS},
    "/v2/rerank": {"query": QUERY, "documents": DOCUMENTS},
    "/voyage/v1/rerank": {"query": QUERY, "documents": DOCUMENTS},
    "/infinity/rerank": {"query": QUERY, "documents": DOCUMENTS},
    "/rerank": {"query": QUERY, "texts": DOCUMENTS},
    "/score": {"text_1": QUERY, "text_2": DOCUMENTS},
    "/v1/score": {"text_1": QUERY, "text_2": DOCUMENTS},
}


def scores_of(answer: Any) -> dict[int, float]:
    rows = answer if isinstance(answer, list) else answer.get("results") or answer["data"]
    return {row["index"]: row.get("relevance_score", row.get("score")) for row in rows}


@pytest.mark.parametrize("path", BODIES)
def test_instruction_and_raw_scores_are_accepted_everywhere(http: TestClient, reranker: StandIn, path: str) -> None:
    body = BODIES[path] | {"instruction": "prefer the short ones", "raw_scores": True}
    margins = reranker.margins(QUERY, DOCUMENTS, "prefer the short ones")
    assert scores_of(ok(http.post(path, json=body))) == dict(enumerate(map(float, margins)))
    assert not np.allclose(margins, reranker.margins(QUERY, DOCUMENTS))


@pytest.mark.parametrize("path", BODIES)
def test_unknown_fields_of_other_services_are_ignored(http: TestClient, path: str) -> None:
    ok(http.post(path, json=BODIES[path] | {"priority": 3, "user": "me", "max_chunks_per_doc": 10}))


ERRORS = {
    "/v1/rerank": (422, {"detail", "message", "id", "error"}),
    "/v2/rerank": (400, {"message", "id"}),
    "/voyage/v1/rerank": (400, {"detail"}),
    "/infinity/rerank": (422, {"error"}),
    "/rerank": (422, {"error", "error_type"}),
    "/score": (400, {"error"}),
    "/v1/score": (400, {"error"}),
}


@pytest.mark.parametrize("path", ERRORS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"query": 1}',
        b'{"query": NaN}',
        b"\xff\xfe",
        b'{"query": "\\ud800"}',
    ],
)
def test_bad_bodies_get_the_formats_own_error(http: TestClient, path: str, body: bytes) -> None:
    response = http.post(path, content=body, headers={"content-type": "application/json"})
    status, keys = ERRORS[path]
    assert (response.status_code, set(response.json())) == (status, keys)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"query": ""}, "query"),
        ({"query": 5}, "query"),
        ({"query": None}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "text"}, "documents"),
        ({"documents": [1]}, "documents.0"),
        ({"documents": ["a", {"title": "no text"}]}, "documents.1"),
        ({"documents": ["a", {"text": 5}]}, "documents.1"),
        ({"documents": ["a", {"text": "b", "title": 5}], "rank_fields": ["body"]}, "documents.1"),
        ({"documents": ["a", {"title": "t"}], "rank_fields": ["title", "text"]}, "documents.1"),
        ({"documents": ["a", {"title": None}], "rank_fields": ["title"]}, "documents.1"),
        ({"documents": ["a", {"title": ["t"]}], "rank_fields": ["title"]}, "documents.1"),
        ({"documents": ["a", {"title": True}], "rank_fields": ["title"]}, "documents.1"),
        ({"top_n": -1}, "top_n"),
        ({"top_n": True}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"top_n": "3"}, "top_n"),
        ({"raw_scores": "yes"}, "raw_scores"),
        ({"instruction": ["x"]}, "instruction"),
        ({"model": 7}, "model"),
    ],
)
def test_errors_name_the_field_and_never_the_value(http: TestClient, change: dict[str, Any], named: str) -> None:
    response = http.post("/v1/rerank", json=BODIES["/v1/rerank"] | change)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(named), response.text
    assert QUERY not in response.text


def test_unequal_pairs_are_refused(http: TestClient) -> None:
    response = http.post("/score", json={"text_1": ["a", "b"], "text_2": ["x", "y", "z"]})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "text_1"


def test_json_is_the_only_body(http: TestClient) -> None:
    body = '{"query": "q", "documents": ["a"]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert http.post("/v1/rerank", content=body, headers={"content-type": kind}).status_code == 415
    for kind in ("application/json", "application/json; charset=utf-8", "application/vnd.api+json"):
        ok(http.post("/v1/rerank", content=body, headers={"content-type": kind}))
    compressed = http.post(
        "/v1/rerank", content=body, headers={"content-type": "application/json", "content-encoding": "gzip"}
    )
    assert compressed.status_code == 415


def test_unknown_paths_and_methods(http: TestClient) -> None:
    assert http.get("/nothing").status_code == 404
    wrong = http.get("/v2/rerank")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert set(wrong.json()) == {"message", "id"}


FORMATS = {
    "/v1/rerank": ("documents", "results"),
    "/v2/rerank": ("documents", "results"),
    "/voyage/v1/rerank": ("documents", "data"),
    "/infinity/rerank": ("documents", "results"),
    "/rerank": ("texts", None),
    "/v1/score": ("text_2", "data"),
}


@pytest.mark.parametrize("path", FORMATS)
def test_thresholds_in_every_format(http: TestClient, reranker: StandIn, path: str) -> None:
    name, key = FORMATS[path]
    body = {"text_1" if name == "text_2" else "query": QUERY, name: DOCUMENTS}
    margins = reranker.margins(QUERY, DOCUMENTS)
    order = reranker.order(QUERY, DOCUMENTS)
    limit = order[1]
    wanted = sorted(order[:2]) if path == "/v1/score" else order[:2]
    given = {"min_score": float(reranker.probability(margins[limit]))}, {"min_margin": float(margins[limit])}
    for options in given:
        response = http.post(path, json={**body, **options, "raw_scores": True})
        answer = ok(response)
        assert [row["index"] for row in (answer[key] if key else answer)] == wanted
        assert response.headers["x-prorank-left-out"] == "2"
        assert key is None or answer["meta"]["left_out"] == 2
    plain = http.post(path, json=body)
    assert "x-prorank-left-out" not in plain.headers
    assert key is None or "left_out" not in ok(plain).get("meta", {})
    for options in ({"min_score": 1.01}, {"min_score": "0.5"}, {"min_margin": "high"}):
        refused = http.post(path, json={**body, **options})
        assert refused.status_code in (400, 422)
        assert next(iter(options)) in refused.text
