"""prorank.Client and AsyncClient against a real server, and against one that is busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from standin import StandIn

import prorank
from prorank.client import AsyncClient, Client, ServerError
from prorank.types import Document

QUERY = "how do vaccines create immunity"
DOCUMENTS = ["cells remember", Document("d2", "is fine", "The weather"), {"_id": "d3", "text": "a harmless piece"}]
CONTENT = ["cells remember", "The weather is fine", "a harmless piece"]
IDS = ["0", "d2", "d3"]


def expected(reranker: StandIn, instruction: str | None = None) -> list[tuple[int, str, float, str]]:
    margins = reranker.margins(QUERY, CONTENT, instruction)
    return [(i, IDS[i], float(margins[i]), CONTENT[i]) for i in reranker.order(QUERY, CONTENT, instruction)]


def test_rank_answers_what_the_library_does(live: Any, reranker: StandIn) -> None:
    with prorank.Client(live(reranker).url) as client:
        assert client.ready()
        results = client.rank(QUERY, DOCUMENTS)
        assert [(r.index, r.doc_id, r.margin, r.text) for r in results] == expected(reranker)
        assert results[0].probability == pytest.approx(float(reranker.probability(results[0].margin)))
        other = client.rank(QUERY, DOCUMENTS, top_k=1, instruction="be brief", return_documents=False)
        assert [(r.index, r.margin, r.text) for r in other] == [(*expected(reranker, "be brief")[0][::2][:2], None)]
        assert client.rank(QUERY, []) == []
        assert client.score([(QUERY, CONTENT[0])]) == [float(reranker.margins(QUERY, CONTENT[:1])[0])]
        assert [model["id"] for model in client.models()] == ["fake"]


async def test_async(live: Any, reranker: StandIn) -> None:
    async with AsyncClient(live(reranker).url) as client:
        assert await client.ready()
        results = await client.rank(QUERY, DOCUMENTS)
        assert [(r.index, r.doc_id, r.margin, r.text) for r in results] == expected(reranker)
        assert await client.score([(QUERY, CONTENT[0])]) == [float(reranker.margins(QUERY, CONTENT[:1])[0])]
        assert [model["id"] for model in await client.models()] == ["fake"]
        assert await client.rank(QUERY, []) == []


def test_keys_and_models(live: Any) -> None:
    server = live({"a": StandIn("a"), "b": StandIn("b")}, api_keys=("the-right-key",))
    with Client(server.url, api_key="the-right-key", model="b") as client:
        assert len(client.rank("q", ["x"])) == 1
        with pytest.raises(ServerError, match="no such model") as caught:
            client.rank("q", ["x"], model="c")
        assert caught.value.status == 404
        assert caught.value.request_id
    with Client(server.url) as client, pytest.raises(ServerError, match="401"):
        client.rank("q", ["x"])


def scripted(
    answers: list[tuple[int, dict[str, str]]], calls: list[float]
) -> Callable[[httpx.Request], httpx.Response]:
    def handle(_: httpx.Request) -> httpx.Response:
        calls.append(time.monotonic())
        status, headers = answers[min(len(calls), len(answers)) - 1]
        ok = {"results": [{"index": 0, "relevance_score": 0.5, "margin": 0.0}]}
        return httpx.Response(status, headers=headers, json=ok if status == 200 else {"detail": "busy"})

    return handle


@pytest.mark.parametrize("status", [429, 503])
def test_busy_servers_are_asked_again_with_growing_pauses(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    pauses: list[float] = []
    monkeypatch.setattr("prorank.client.time.sleep", pauses.append)
    client = Client("http://x", backoff=4.0)
    client._http = httpx.Client(
        transport=httpx.MockTransport(scripted([(status, {}), (status, {}), (200, {})], calls)), base_url="http://x"
    )
    assert len(client.rank("q", ["a"])) == 1
    assert pauses == [pytest.approx(4.0, rel=0.26), pytest.approx(8.0, rel=0.26)]


async def test_retry_after_is_respected_and_retries_end() -> None:
    calls: list[float] = []
    client = AsyncClient("http://x", backoff=0.01, retries=1)
    transport = httpx.MockTransport(scripted([(429, {"retry-after": "1"})], calls))
    client._http = httpx.AsyncClient(transport=transport, base_url="http://x")
    with pytest.raises(ServerError, match="429: busy"):
        await client.rank("q", ["a"])
    assert len(calls) == 2
    assert calls[1] - calls[0] >= 1


@pytest.mark.parametrize("status", [400, 401, 413, 422, 500])
def test_other_errors_are_not_asked_again(status: int) -> None:
    calls: list[float] = []
    client = Client("http://x")
    client._http = httpx.Client(transport=httpx.MockTransport(scripted([(status, {})], calls)), base_url="http://x")
    with pytest.raises(ServerError, match=str(status)):
        client.rank("q", ["a"])
    assert len(calls) == 1


def test_a_server_that_is_not_there() -> None:
    with Client("http://127.0.0.1:9", retries=1, backoff=0.01) as client:
        assert not client.ready()
        with pytest.raises(ServerError, match=r"no answer from http://127\.0\.0\.1:9"):
            client.rank("q", ["a"])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="url"):
        Client("localhost:8080")
    with pytest.raises(ValueError, match="document 1"):
        Client("http://x").rank("q", ["a", 5])  # type: ignore[list-item]
