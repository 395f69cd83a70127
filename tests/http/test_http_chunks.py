"""Chunks over HTTP: in every format and the client what the library gives."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from prorank import Reranker
from prorank.backends.fake import FakeBackend
from prorank.client import AsyncClient, Client
from prorank.prompt.encoder import PromptEncoder
from prorank.prompt.presets import PRESETS

QUERY = "does garlic lower blood pressure"
DOCUMENTS = ["".join(f"Sentence {i} of text {n}. " for i in range(50)) for n in range(3)] + ["short"]
FORMATS = {
    "/v1/rerank": ("documents", "results"),
    "/v2/rerank": ("documents", "results"),
    "/voyage/v1/rerank": ("documents", "data"),
    "/infinity/rerank": ("documents", "results"),
    "/rerank": ("texts", None),
}


def reranker(tokenizer: Any, long_documents: Any = "max_window") -> Reranker:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=128, long_documents=long_documents)
    return Reranker(FakeBackend(), encoder, name="fake")


@pytest.mark.parametrize("path", FORMATS)
def test_every_format_gives_the_librarys_chunks(serve: Any, tokenizer: Any, path: str) -> None:
    model = reranker(tokenizer)
    http: TestClient = serve(model)
    name, key = FORMATS[path]
    body = {"query": QUERY, name: DOCUMENTS, "return_chunks": True}
    for options in ({}, {"max_chunks_per_doc": 2}, {"max_tokens_per_doc": 150}):
        wanted = model.rank(QUERY, DOCUMENTS, return_chunks=True, **options)
        answer = http.post(path, json={**body, **options, "truncate": True}).json()
        rows = answer[key] if key else answer
        assert [row["index"] for row in rows] == [r.index for r in wanted]
        assert [row["chunk"] for row in rows] == [r.chunk._asdict() for r in wanted if r.chunk]
    assert "chunk" not in str(http.post(path, json={"query": QUERY, name: ["short"]}).json())
    refused = http.post(path, json={**body, "max_chunks_per_doc": 0})
    assert refused.status_code in (400, 422)
    assert "max_chunks_per_doc" in refused.text


def test_a_text_that_loses_its_beginning_shows_its_end(serve: Any, tokenizer: Any) -> None:
    http: TestClient = serve(reranker(tokenizer, "truncate"))
    options = {"truncate": True, "truncation_direction": "Left", "return_chunks": True}
    (row,) = http.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS[:1], **options}).json()
    chunk = row["chunk"]
    assert chunk["end"] == len(DOCUMENTS[0].strip())
    assert chunk["start"] > 0
    assert DOCUMENTS[0][chunk["start"] : chunk["end"]] == chunk["text"]


async def test_both_clients_give_the_librarys_chunks(live: Any, tokenizer: Any) -> None:
    model = reranker(tokenizer)
    url = live(model).url
    wanted = model.rank(QUERY, DOCUMENTS, return_chunks=True, max_chunks_per_doc=3)
    with Client(url) as client:
        assert client.rank(QUERY, DOCUMENTS, return_chunks=True, max_chunks_per_doc=3) == wanted
        with pytest.raises(TypeError, match="max_chunks"):
            client.rank(QUERY, DOCUMENTS, max_chunks=3)
    async with AsyncClient(url) as several:
        assert await several.rank(QUERY, DOCUMENTS, return_chunks=True, max_chunks_per_doc=3) == wanted
