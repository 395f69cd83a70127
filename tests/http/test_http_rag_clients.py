"""The requests of RAG programs, as their public code makes them, and what that code reads of the answers.

docs/clients.md has the settings; each test says which part of the client's code it repeats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from standin import StandIn
from starlette.testclient import TestClient

QUERY = "how do vaccines create immunity"
DOCUMENTS = ["cells remember", "the weather is fine today", "a vaccine shows the body a harmless piece", "bread"]


def ok(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def probabilities(reranker: StandIn) -> dict[int, float]:
    return dict(enumerate(map(float, reranker.probability(reranker.margins(QUERY, DOCUMENTS)))))


def test_open_webui(http: TestClient, reranker: StandIn) -> None:
    """retrieval/models/external.py: posts to the URL itself; needs every document's score, sorted by index."""
    body = {"model": "reranker", "query": QUERY, "documents": DOCUMENTS, "top_n": len(DOCUMENTS)}
    headers = {"authorization": "Bearer x", "x-openwebui-user-name": "someone"}
    rows = sorted(ok(http.post("/v1/rerank", json=body, headers=headers))["results"], key=lambda row: row["index"])
    assert [row["relevance_score"] for row in rows] == list(probabilities(reranker).values())


@pytest.mark.parametrize("base", ["", "/v1"])
@pytest.mark.parametrize("top_n", [2, 0, 4])
def test_dify(http: TestClient, reranker: StandIn, base: str, top_n: int) -> None:
    """openai_api_compatible/models/rerank: endpoint URL + /rerank; index and relevance_score of each result."""
    body = {"model": "reranker", "query": QUERY, "documents": DOCUMENTS, "top_n": top_n}
    rows = ok(http.post(f"{base}/rerank", json=body, headers={"authorization": ""}))["results"]
    assert [row["index"] for row in rows] == reranker.order(QUERY, DOCUMENTS)[: top_n or None]
    assert all(row["relevance_score"] == probabilities(reranker)[row["index"]] for row in rows)
    assert all(row["document"]["text"] == DOCUMENTS[row["index"]] for row in rows), "the SDK's base class reads it"


def test_dify_with_documents_in_parts(http: TestClient, reranker: StandIn) -> None:
    """The same, where the model is marked as seeing pictures: vLLM's content parts."""
    parts = [{"content": [{"type": "text", "text": text}]} for text in DOCUMENTS]
    rows = ok(http.post("/v1/rerank", json={"model": "m", "query": QUERY, "documents": parts, "top_n": 4}))["results"]
    assert {row["index"]: row["relevance_score"] for row in rows} == probabilities(reranker)
    picture = [{"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}]
    for bad in (picture, [{"content": []}], [{"content": "text"}], [{"content": [{"type": "text", "text": 5}]}]):
        refused = http.post("/v1/rerank", json={"query": QUERY, "documents": bad})
        assert refused.status_code == 422
        assert "documents.0: expected content to be parts of the type" in refused.json()["detail"]


def test_ragflow_openai_api_compatible_and_localai(http: TestClient, reranker: StandIn) -> None:
    """rag/llm/rerank_model.py, OpenAI_APIRerank and LocalAIRerank: base URL + /rerank; index and relevance_score."""
    body = {"model": "m", "query": QUERY, "documents": DOCUMENTS, "top_n": len(DOCUMENTS)}
    rank = np.zeros(len(DOCUMENTS))
    for row in ok(http.post("/rerank", json=body))["results"]:
        rank[row["index"]] = row["relevance_score"]
    assert list(rank) == list(probabilities(reranker).values())


@pytest.mark.parametrize("word", ["true", "True", "false"])
def test_ragflow_xinference_sends_switches_as_words(http: TestClient, reranker: StandIn, word: str) -> None:
    """XInferenceRerank: /v1/rerank with return_documents and return_len as strings."""
    body = {"model": "m", "query": QUERY, "return_documents": word, "return_len": "true", "documents": DOCUMENTS}
    rows = ok(http.post("/v1/rerank", json=body))["results"]
    assert {row["index"]: row["relevance_score"] for row in rows} == probabilities(reranker)
    assert all(("document" in row) == (word.lower() == "true") for row in rows)
    for bad in ("yes", "", 1):
        refused = http.post("/v1/rerank", json={**body, "return_documents": bad})
        assert refused.status_code == 422
        assert "return_documents" in refused.json()["detail"]


def test_ragflow_siliconflow(http: TestClient, reranker: StandIn) -> None:
    """SILICONFLOWRerank's further fields."""
    body = {"model": "m", "query": QUERY, "documents": DOCUMENTS, "top_n": 4, "return_documents": False}
    rows = ok(http.post("/v1/rerank", json={**body, "max_chunks_per_doc": 1024, "overlap_tokens": 80}))["results"]
    assert {row["index"]: row["relevance_score"] for row in rows} == probabilities(reranker)


@pytest.mark.parametrize("path", ["/rerank", "/reranking", "/v1/rerank", "/v1/reranking"])
def test_llama_cpp(http: TestClient, reranker: StandIn, path: str) -> None:
    """llama-server's four routes: documents in Jina's form, top_n of them."""
    body = {"model": "m", "query": QUERY, "documents": DOCUMENTS, "top_n": 3}
    answer = ok(http.post(path, json=body))
    assert [row["index"] for row in answer["results"]] == reranker.order(QUERY, DOCUMENTS)[:3]
    assert answer["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("path", ["/rerank", "/reranking", "/v1/reranking"])
def test_llama_cpp_in_the_form_of_tei(http: TestClient, reranker: StandIn, path: str) -> None:
    """With texts, llama-server answers as text-embeddings-inference."""
    rows = ok(http.post(path, json={"query": QUERY, "texts": DOCUMENTS, "return_text": True}))
    assert [row["index"] for row in rows] == reranker.order(QUERY, DOCUMENTS)
    assert [row["text"] for row in rows] == [DOCUMENTS[row["index"]] for row in rows]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_vllm(http: TestClient, reranker: StandIn, path: str) -> None:
    """RerankRequest of vLLM's protocol, every field at its default, then its own ways of asking."""
    body = {
        "model": None, "query": QUERY, "documents": DOCUMENTS, "top_n": 0, "truncate_prompt_tokens": None,
        "mm_processor_kwargs": None, "priority": 0, "softmax": None, "activation": None, "use_activation": None,
        "max_tokens_per_doc": 0, "user": None,
    }  # fmt: skip
    rows = ok(http.post(path, json=body))["results"]
    assert {row["index"]: row["relevance_score"] for row in rows} == probabilities(reranker)
    raw = ok(http.post(path, json={**body, "use_activation": False, "truncate_prompt_tokens": -1}))["results"]
    margins = dict(enumerate(map(float, reranker.margins(QUERY, DOCUMENTS))))
    assert {row["index"]: row["relevance_score"] for row in raw} == margins
    pairs = {"text_1": QUERY, "text_2": DOCUMENTS, "use_activation": False}
    assert [row["score"] for row in ok(http.post("/score", json=pairs))["data"]] == list(margins.values())


def test_infinity(http: TestClient, reranker: StandIn) -> None:
    """infinity's RerankInput with its own defaults, on its own route."""
    body = {
        "query": QUERY,
        "documents": DOCUMENTS,
        "return_documents": False,
        "raw_scores": False,
        "model": "default/x",
    }
    for path in ("/rerank", "/infinity/rerank"):
        rows = ok(http.post(path, json={**body, "top_n": None}))["results"]
        assert {row["index"]: row["relevance_score"] for row in rows} == probabilities(reranker)
