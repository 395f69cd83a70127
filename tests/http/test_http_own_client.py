"""prorank.Client and AsyncClient against a real server, and against one that is busy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from standin import StandIn

import prorank
from prorank.client import AsyncClient, Client, ServerError
from prorank.client.requests import RankKeywords, RankOptions
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
    monkeypatch.setattr("time.sleep", pauses.append)
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


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout])
async def test_no_connection_is_tried_again(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr("asyncio.sleep", pause)

    def transport() -> httpx.MockTransport:
        return httpx.MockTransport(failing(error, times=2))

    client = Client("http://x", backoff=4.0)
    client._http = httpx.Client(transport=transport(), base_url="http://x")
    assert len(client.rank("q", ["a"])) == 1
    async_client = AsyncClient("http://x", backoff=4.0)
    async_client._http = httpx.AsyncClient(transport=transport(), base_url="http://x")
    assert len(await async_client.rank("q", ["a"])) == 1
    assert pauses == [pytest.approx(seconds, rel=0.26) for seconds in (4.0, 8.0) * 2]
    few = Client("http://x", retries=1)
    few._http = httpx.Client(transport=transport(), base_url="http://x")
    with pytest.raises(ServerError, match=f"no answer from http://x: {error.__name__}"):
        few.rank("q", ["a"])


def failing(error: type[Exception], times: int) -> Callable[[httpx.Request], httpx.Response]:
    calls: list[httpx.Request] = []
    good = scripted([(200, {})], [])

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if len(calls) <= times:
            raise error("not today")
        return good(request)

    return handle


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ReadError])
def test_what_may_have_been_scored_is_not_asked_again(error: type[Exception]) -> None:
    client = Client("http://x")
    client._http = httpx.Client(transport=httpx.MockTransport(failing(error, times=1)), base_url="http://x")
    with pytest.raises(ServerError, match=error.__name__):
        client.rank("q", ["a"])


async def test_arrays_columns_and_iterators_as_in_the_library(live: Any, reranker: StandIn, fake_reranker: Any) -> None:
    pandas = pytest.importorskip("pandas")
    texts = ["cells remember", "a harmless piece", "bread"]
    order = reranker.order(QUERY, texts)
    given: list[Callable[[], Any]] = [
        lambda: texts, lambda: tuple(texts), lambda: np.array(texts), lambda: np.array(texts, dtype=object),
        lambda: pandas.Series(texts, index=[7, 8, 9]), lambda: iter(texts), lambda: (text for text in texts),
    ]  # fmt: skip
    nothing: list[Callable[[], Any]] = [
        list, lambda: (), lambda: iter([]), lambda: np.array([]), lambda: pandas.Series([], dtype=object),
    ]  # fmt: skip
    pairs = [(QUERY, text) for text in texts]
    as_pairs: list[Callable[[], Any]] = [lambda: pairs, lambda: np.array(pairs), lambda: iter(pairs)]
    margins = [float(margin) for margin in reranker.margins(QUERY, texts)]
    url = live(reranker).url
    with Client(url) as client:
        async with AsyncClient(url) as other:
            for make in given:
                for found in (client.rank(QUERY, make()), await other.rank(QUERY, make())):
                    assert [result.index for result in found] == order
                assert len(fake_reranker.rank(QUERY, make())) == 3, "the library takes it, too"
            for make in nothing:
                assert client.rank(QUERY, make()) == await other.rank(QUERY, make()) == []
                assert fake_reranker.rank(QUERY, make()) == []
            for make in as_pairs:
                assert client.score(make()) == await other.score(make()) == margins
            assert client.score(iter([])) == await other.score(np.zeros((0, 2))) == []
            for count in (np.int64(1), np.uint8(1)):
                assert [r.index for r in client.rank(QUERY, texts, top_k=count)] == order[:1]
                assert [r.index for r in await other.rank(QUERY, texts, top_k=count)] == order[:1]


@pytest.mark.parametrize("top_k", [0, -1])
def test_what_the_library_refuses_the_client_refuses(fake_reranker: Any, top_k: int) -> None:
    for ranker in (Client("http://x"), fake_reranker):
        with pytest.raises(ValueError, match=f"top_k must be at least 1, got {top_k}"):
            ranker.rank("q", ["a"], top_k=top_k)
        with pytest.raises(ValueError, match="pair 1 must be"):
            ranker.score([("q", "d"), ("q", "d", "x")])
        with pytest.raises(ValueError, match="pair 0 must be"):
            ranker.score(["qd"])
        with pytest.raises(ValueError, match="expected a list of documents"):
            ranker.rank("q", "one text")


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


async def test_thresholds_are_the_librarys(live: Any, reranker: StandIn) -> None:
    url = live(reranker).url
    margins = sorted((margin for _, _, margin, _ in expected(reranker)), reverse=True)
    second = float(reranker.probability(margins[1]))
    async with AsyncClient(url) as several:
        with Client(url) as client:
            for options in ({"min_margin": margins[1]}, {"min_score": second}):
                for ranked in (
                    client.rank(QUERY, DOCUMENTS, **options),
                    await several.rank(QUERY, DOCUMENTS, **options),
                ):
                    assert [r.margin for r in ranked] == margins[:2]
                    assert ranked.left_out == 1
            assert client.rank(QUERY, DOCUMENTS, top_k=1).left_out == 0
            with pytest.raises(ValueError, match="min_score must be a probability"):
                client.rank(QUERY, DOCUMENTS, min_score=2)


async def test_an_iterator_goes_in_several_requests(
    live: Any, reranker: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prorank.client.requests._BLOCK", 2)
    url = live(reranker).url
    wanted = [place[:3] for place in expected(reranker)[:2]]
    with Client(url) as client:
        assert [(r.index, r.doc_id, r.margin) for r in client.rank(QUERY, iter(DOCUMENTS), top_k=2)] == wanted
        assert [r.index for r in client.rank(QUERY, iter(DOCUMENTS))] == [place for place, *_ in expected(reranker)]
    assert sorted(map(sum, reranker.calls)) == [1, 2, 3]
    async with AsyncClient(url) as several:
        assert [(r.index, r.doc_id, r.margin) for r in await several.rank(QUERY, iter(DOCUMENTS), top_k=2)] == wanted


def test_the_arguments_are_the_options() -> None:
    """They are spelled twice: once for who reads and checks types, once for who runs."""
    assert set(RankKeywords.__annotations__) == {field.name for field in dataclasses.fields(RankOptions)}
