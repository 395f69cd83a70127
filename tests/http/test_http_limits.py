"""Limits, keys, time-outs, overload, clients that leave: what a server does instead of falling over."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from standin import StandIn

from prorank.serve.app import create_app
from prorank.serve.config import ServeConfig

BODY = {"query": "q", "documents": ["a", "b c"]}


@pytest.mark.parametrize(
    ("limit", "body"),
    [
        ({"max_documents": 3}, {"query": "q", "documents": ["a"] * 4}),
        ({"max_document_chars": 10}, {"query": "q", "documents": ["a", "b" * 11]}),
        ({"max_query_chars": 5}, {"query": "queries", "documents": ["a"]}),
        ({"max_query_chars": 5}, {"query": "q", "documents": ["a"], "instruction": "long one"}),
        ({"max_request_tokens": 20}, {"query": "q", "documents": ["a b c d e f"] * 4}),
        ({"max_body_bytes": 100}, {"query": "q", "documents": ["a" * 200]}),
    ],
)
def test_too_large_is_413_with_the_bound_named(serve: Any, reranker: StandIn, limit: dict, body: dict) -> None:
    http = serve(reranker, **limit)
    for path, key in (("/v1/rerank", "detail"), ("/v2/rerank", "message"), ("/voyage/v1/rerank", "detail")):
        response = http.post(path, json=body)
        assert response.status_code == 413, response.text
        assert str(next(iter(limit.values()))) in response.json()[key]
    assert http.post("/v1/rerank", json=BODY | {"query": "q"}).status_code in (200, 413)


def test_score_pairs_count_as_documents(serve: Any, reranker: StandIn) -> None:
    http = serve(reranker, max_documents=3)
    assert http.post("/score", json={"text_1": "q", "text_2": ["a"] * 3}).status_code == 200
    response = http.post("/score", json={"text_1": "q", "text_2": ["a"] * 4})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == 413


def test_a_chunked_body_without_length_is_bounded_too(serve: Any, reranker: StandIn) -> None:
    http = serve(reranker, max_body_bytes=1000)
    response = http.post(
        "/v2/rerank", content=(b"x" * 100 for _ in range(50)), headers={"content-type": "application/json"}
    )
    assert response.status_code == 413


KEYS = ("first-secret-key", "second-secret-key")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong-secret-key"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Basic Zmlyc3Q6c2VjcmV0"}, 401),
        ({"authorization": f"Bearer {KEYS[0]}x"}, 401),
        ({"x-api-key": "wrong"}, 401),
        ({"authorization": b"Bearer \xff\xfe\x80"}, 401),
        ({"authorization": f"Bearer {KEYS[0]}"}, 200),
        ({"authorization": f"bearer {KEYS[1]}"}, 200),
        ({"x-api-key": KEYS[1]}, 200),
    ],
)
def test_keys(serve: Any, reranker: StandIn, headers: dict, status: int) -> None:
    http = serve(reranker, api_keys=KEYS)
    assert http.post("/v2/rerank", json=BODY, headers=headers).status_code == status
    assert http.get("/v1/models", headers=headers).status_code == status


def test_a_refused_key_gets_the_formats_body_and_is_never_shown(serve: Any, reranker: StandIn) -> None:
    http = serve(reranker, api_keys=KEYS)
    keys = {"/v2/rerank": {"message", "id"}, "/voyage/v1/rerank": {"detail"}, "/rerank": {"error", "error_type"}}
    for path, fields in keys.items():
        response = http.post(path, json=BODY, headers={"authorization": "Bearer wrong-secret-key"})
        assert set(response.json()) == fields
        assert response.headers["www-authenticate"] == "Bearer"
        assert "wrong-secret" not in response.text
        assert "first-secret" not in response.text


def test_the_page_and_probes_need_no_key(serve: Any, reranker: StandIn) -> None:
    http = serve(reranker, api_keys=KEYS)
    for path in ("/", "/docs", "/openapi.json", "/health", "/ready", "/metrics", "/style.css"):
        assert http.get(path).status_code == 200, path
    assert http.get("/secret").status_code == 401


@pytest.mark.parametrize("key", ["short", " padded-key ", "with\nnewline-key", "ключ-не-ascii"])
def test_unusable_keys_are_refused_at_start(key: str) -> None:
    with pytest.raises(ValueError, match="api_keys") as caught:
        ServeConfig(api_keys=(key,))
    assert key not in str(caught.value)


@pytest.mark.parametrize("name", ["max_batch_tokens", "max_documents", "request_timeout", "max_queue_seconds"])
def test_limits_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ServeConfig(**{name: 0})


def test_the_configuration_does_not_show_its_keys() -> None:
    assert "secret" not in repr(ServeConfig(api_keys=KEYS))


def test_over_time_is_503_and_the_work_is_dropped(serve: Any, reranker: StandIn) -> None:
    http = serve(reranker, request_timeout=0.2)
    reranker.hold.clear()
    response = http.post("/rerank", json={"query": "q", "texts": ["a"]})
    assert response.status_code == 503
    assert response.json()["error_type"] == "Overloaded"
    assert int(response.headers["retry-after"]) >= 1
    reranker.hold.set()
    deadline = time.monotonic() + 20  # a slow machine may need more than 0.2 s now and then
    while http.post("/rerank", json={"query": "q", "texts": ["a"]}).status_code != 200:
        assert time.monotonic() < deadline


def test_too_many_requests_at_once_get_429_with_retry_after(live: Any, reranker: StandIn) -> None:
    server = live(reranker, max_queue_requests=4)
    reranker.hold.clear()
    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(httpx.post, f"{server.url}/v2/rerank", json=BODY, timeout=20) for _ in range(12)]
        while sum(future.done() for future in waiting) < 8:
            time.sleep(0.01)
        refused = [future.result() for future in waiting if future.done()]
        reranker.hold.set()
        answered = [future.result() for future in waiting if future.result() not in refused]
    assert [response.status_code for response in refused] == [429] * 8
    assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
    assert set(refused[0].json()) == {"message", "id"}
    assert [response.status_code for response in answered] == [200] * 4


def test_a_full_queue_gets_429(live: Any, reranker: StandIn) -> None:
    server = live(reranker, max_queue_tokens=60)
    reranker.hold.clear()
    big = {"query": "q", "texts": [f"a b c {i}" for i in range(8)]}
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(httpx.post, f"{server.url}/rerank", json=big, timeout=20)
        while not reranker.calls:
            time.sleep(0.01)
        response = httpx.post(f"{server.url}/rerank", json=big, timeout=20)
        reranker.hold.set()
        assert first.result().status_code == 200
    assert response.status_code == 429
    assert response.json()["error_type"] == "Overloaded"


def test_the_work_of_a_client_that_went_away_is_dropped(live: Any) -> None:
    reranker = StandIn()
    server = live(reranker, max_batch_tokens=30)
    reranker.hold.clear()
    body = {"query": "leaver", "documents": [f"one two three {i}" for i in range(100)]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/rerank", json=body, timeout=0.5)
    deadline = time.monotonic() + 20
    while server.app.service.in_flight:
        assert time.monotonic() < deadline, "the server did not notice"
        time.sleep(0.01)
    reranker.hold.set()
    assert httpx.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200
    assert sum(sum(call) for call in reranker.calls) <= 6 + 2, "documents of the client that left were scored"
    metrics = httpx.get(f"{server.url}/metrics").text
    assert "prorank_client_gone_total 1.0" in metrics
    assert 'prorank_queue_dropped_total{model="fake"} 1.0' in metrics


def test_scoring_never_blocks_the_event_loop(live: Any, reranker: StandIn) -> None:
    server = live(reranker)
    reranker.hold.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(httpx.post, f"{server.url}/v1/rerank", json=BODY, timeout=20) for _ in range(8)]
        while not reranker.calls:
            time.sleep(0.01)
        for _ in range(20):
            assert httpx.get(f"{server.url}/health", timeout=10).status_code == 200  # scoring is still held
        reranker.hold.set()
        assert {future.result().status_code for future in waiting} == {200}


def test_many_clients_at_once_each_get_their_own_scores(live: Any, reranker: StandIn) -> None:
    server = live(reranker, max_batch_tokens=64)

    def ask(number: int) -> bool:
        documents = [f"client {number} document {i} " + "x " * (i * number % 7) for i in range(1 + number % 17)]
        body = {"query": f"query {number}", "texts": documents, "raw_scores": True, "truncate": True}
        answer = httpx.post(f"{server.url}/rerank", json=body, timeout=30).json()
        got = np.zeros(len(documents), dtype=np.float32)
        for row in answer:
            got[row["index"]] = row["score"]
        return bool(np.array_equal(got, reranker.margins(f"query {number}", documents)))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))


def test_a_broken_model_is_an_error_of_that_request_only(
    serve: Any, reranker: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    http = serve(reranker)

    def fail() -> None:
        raise RuntimeError("secret text in a message")

    reranker.fail = fail
    with caplog.at_level(logging.INFO, "prorank.serve"):
        response = http.post("/v2/rerank", json=BODY)
    assert response.status_code == 500
    assert set(response.json()) == {"message", "id"}
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == response.json()["id"]
    reranker.fail = None
    assert http.post("/v2/rerank", json=BODY).status_code == 200


async def test_the_app_runs_without_a_socket_too(reranker: StandIn) -> None:
    before = set(threading.enumerate())
    app = create_app(reranker)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = await asyncio.gather(*(client.post("/v2/rerank", json=BODY) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert any(thread.name == "prorank-fake" for thread in set(threading.enumerate()) - before)
    app.service.close()
    assert not any(thread.name == "prorank-fake" for thread in set(threading.enumerate()) - before)
