"""``explain`` over HTTP: what the library says, in every rerank format and by the clients, within bounds."""

from __future__ import annotations

from typing import Any

import pytest
from standin import StandIn
from starlette.testclient import TestClient

from prorank import Reranker
from prorank.backends.fake import FakeBackend
from prorank.client import AsyncClient, Client
from prorank.prompt.encoder import PromptEncoder
from prorank.prompt.presets import PRESETS

QUERY = "does garlic lower blood pressure"
DOCUMENTS = ["Garlic is a plant. It lowers pressure a little!", "Bread. Butter. Milk.", "short", "", "One more. Here."]
FORMATS = {
    "/v1/rerank": ("documents", "results", "top_n"),
    "/v2/rerank": ("documents", "results", "top_n"),
    "/voyage/v1/rerank": ("documents", "data", "top_k"),
    "/infinity/rerank": ("documents", "results", "top_n"),
    "/rerank": ("texts", None, "unknown"),
}


@pytest.fixture
def model(tokenizer: Any) -> Reranker:
    return Reranker(FakeBackend(), PromptEncoder(tokenizer, PRESETS["prorank"], max_length=128), name="fake")


@pytest.mark.parametrize("path", FORMATS)
def test_every_format_says_what_the_library_says(serve: Any, model: Reranker, path: str) -> None:
    http: TestClient = serve(model)
    name, key, count = FORMATS[path]
    wanted = model.rank(QUERY, DOCUMENTS, explain=3)
    for more in ({}, {"return_chunks": True}):
        answer = http.post(path, json={"query": QUERY, name: DOCUMENTS, "explain": 3, "truncate": True, **more}).json()
        rows = answer[key] if key else answer
        assert [row["index"] for row in rows] == [r.index for r in wanted]
        assert [row.get("sentences") for row in rows] == [
            [s._asdict() for s in r.sentences] if r.sentences is not None else None for r in wanted
        ]
    plain = http.post(path, json={"query": QUERY, name: DOCUMENTS}).json()
    assert "sentences" not in str(plain)
    for wrong in (0, 11, "3"):
        refused = http.post(path, json={"query": QUERY, name: DOCUMENTS, "explain": wrong})
        assert refused.status_code in (400, 422)
        assert "explain" in refused.text
    if key:
        few = http.post(path, json={"query": QUERY, name: DOCUMENTS, "explain": 3, count: 1}).json()[key]
        assert [row["sentences"] for row in few] == [[s._asdict() for s in wanted[0].sentences or ()]]


def test_what_is_not_shown_costs_nothing_and_what_is_counts(serve: Any) -> None:
    reranker = StandIn()
    http: TestClient = serve(reranker)
    body = {"query": QUERY, "documents": DOCUMENTS}
    plain = http.post("/v1/rerank", json=body).json()["usage"]["total_tokens"]
    assert reranker.calls == [[5]]
    told = http.post("/v1/rerank", json={**body, "explain": 10, "top_n": 1}).json()
    assert [len(calls) for calls in reranker.calls[1:]] == [1, 1], "the request, then its best document"
    assert told["usage"]["total_tokens"] > plain
    bounded: TestClient = serve(StandIn(), max_request_tokens=plain + 1)
    assert bounded.post("/v1/rerank", json=body).status_code == 200
    refused = bounded.post("/v1/rerank", json={**body, "explain": 5})
    assert refused.status_code == 413
    strict = http.post("/v1/rerank", json={**body, "explain": 5, "min_margin": 1e6}).json()
    assert strict["results"] == []


async def test_both_clients_give_the_librarys_explanations(live: Any, model: Reranker) -> None:
    url = live(model).url
    wanted = model.rank(QUERY, DOCUMENTS, explain=2)
    many = [f"Number {i}. Another." for i in range(230)]
    of_many = model.rank(QUERY, many, top_k=4, explain=2)
    with Client(url) as client:
        assert client.rank(QUERY, DOCUMENTS, explain=2) == wanted
        assert client.rank(QUERY, iter(many), top_k=4, explain=2) == of_many
    async with AsyncClient(url) as several:
        assert await several.rank(QUERY, DOCUMENTS, explain=2) == wanted
