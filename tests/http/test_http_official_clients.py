"""The services' own clients, unchanged but for the address, over a real socket."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from standin import StandIn

KEY = "a-key-for-the-clients"
QUERY = "how do vaccines create immunity"
DOCUMENTS = ["cells remember", "the weather is fine", "a vaccine shows the body a harmless piece", "bread and butter"]


@pytest.fixture
def server(live: Any, reranker: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return live(reranker, api_keys=(KEY,))


def wanted(reranker: StandIn) -> list[tuple[int, float]]:
    scores = reranker.probability(reranker.margins(QUERY, DOCUMENTS))
    return [(i, pytest.approx(float(scores[i]), abs=1e-6)) for i in reranker.order(QUERY, DOCUMENTS)]


def test_cohere_v2(server: Any, reranker: StandIn) -> None:
    cohere = pytest.importorskip("cohere", reason="cohere is part of the group 'clients'")
    client = cohere.ClientV2(api_key=KEY, base_url=server.url)
    answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=3, max_tokens_per_doc=4096)
    assert [(row.index, row.relevance_score) for row in answer.results] == wanted(reranker)[:3]
    assert answer.meta.api_version.version == "2"
    with pytest.raises(cohere.BadRequestError, match="documents"):
        client.rerank(model="rerank-v3.5", query=QUERY, documents=[])
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2(api_key="not-the-right-key", base_url=server.url).rerank(model="m", query="q", documents=["a"])


def test_cohere_v1(server: Any, reranker: StandIn) -> None:
    cohere = pytest.importorskip("cohere", reason="cohere is part of the group 'clients'")
    client = cohere.Client(api_key=KEY, base_url=server.url)
    answer = client.rerank(query=QUERY, documents=[{"text": text} for text in DOCUMENTS], return_documents=True)
    assert [(row.index, row.relevance_score) for row in answer.results] == wanted(reranker)
    assert answer.results[0].document.text == DOCUMENTS[answer.results[0].index]


def test_cohere_v1_with_rank_fields(server: Any, reranker: StandIn) -> None:
    cohere = pytest.importorskip("cohere", reason="cohere is part of the group 'clients'")
    documents = [{"title": f"No. {place}", "body": text} for place, text in enumerate(DOCUMENTS)]
    client = cohere.Client(api_key=KEY, base_url=server.url)
    answer = client.rerank(query=QUERY, documents=documents, rank_fields=["title", "body"], return_documents=True)
    texts = [f"title: No. {place}\nbody: {text}" for place, text in enumerate(DOCUMENTS)]
    assert [row.index for row in answer.results] == reranker.order(QUERY, texts)
    without = client.rerank(query=QUERY, documents=documents, rank_fields=["title", "body"], top_n=2)
    assert [row.index for row in without.results] == reranker.order(QUERY, texts)[:2]


async def test_cohere_async(server: Any, reranker: StandIn) -> None:
    cohere = pytest.importorskip("cohere", reason="cohere is part of the group 'clients'")
    client = cohere.AsyncClientV2(api_key=KEY, base_url=server.url)
    answer = await client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)
    assert [(row.index, row.relevance_score) for row in answer.results] == wanted(reranker)


def test_voyageai(server: Any, reranker: StandIn) -> None:
    voyageai = pytest.importorskip("voyageai", reason="voyageai is part of the group 'clients'")
    client = voyageai.Client(api_key=KEY, base_url=f"{server.url}/voyage/v1")
    answer = client.rerank(QUERY, DOCUMENTS, model="rerank-2.5", top_k=2)
    assert [(row.index, row.relevance_score) for row in answer.results] == wanted(reranker)[:2]
    assert answer.results[0].document == DOCUMENTS[answer.results[0].index]
    assert answer.total_tokens > 0
    with pytest.raises(voyageai.error.InvalidRequestError, match="documents"):
        client.rerank(QUERY, [], model="rerank-2.5")


def test_langchain_cohere(server: Any, reranker: StandIn) -> None:
    module = pytest.importorskip("langchain_cohere", reason="langchain-cohere is part of the group 'clients'")
    from langchain_core.documents import Document

    compressor = module.CohereRerank(model="rerank-v3.5", cohere_api_key=KEY, base_url=server.url, top_n=2)
    kept = compressor.compress_documents([Document(page_content=text) for text in DOCUMENTS], QUERY)
    assert [one.page_content for one in kept] == [DOCUMENTS[i] for i, _ in wanted(reranker)[:2]]
    assert kept[0].metadata["relevance_score"] == wanted(reranker)[0][1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_langchain_community_jina(server: Any, reranker: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip(
        "langchain_community.document_compressors.jina_rerank",
        reason="langchain-community is part of the group 'clients'",
    )
    from langchain_core.documents import Document

    monkeypatch.setattr(module, "JINA_API_URL", f"{server.url}/v1/rerank")
    compressor = module.JinaRerank(jina_api_key=KEY, top_n=3)
    kept = compressor.compress_documents([Document(page_content=text) for text in DOCUMENTS], QUERY)
    assert [one.page_content for one in kept] == [DOCUMENTS[i] for i, _ in wanted(reranker)[:3]]
    with pytest.raises(RuntimeError, match="query"):
        compressor.rerank(DOCUMENTS, "")


def test_text_embeddings_inference_as_its_documentation_calls_it(server: Any, reranker: StandIn) -> None:
    """huggingface_hub's InferenceClient has no rerank call; TEI's documentation shows a plain POST (and litellm's
    "huggingface" provider sends one, below)."""
    body = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False}
    answer = httpx.post(f"{server.url}/rerank", json=body, headers={"authorization": f"Bearer {KEY}"}).json()
    assert [(row["index"], row["score"]) for row in answer] == wanted(reranker)


def test_openai_style_model_list(server: Any) -> None:
    openai = pytest.importorskip("openai", reason="openai is part of the group 'clients'")
    client = openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1")
    assert [model.id for model in client.models.list()] == ["fake"]


LITELLM = """
import json, sys
import litellm
url, key, query, documents = json.loads(sys.stdin.read())
out = {}
for provider, base in (("cohere", url), ("jina_ai", url), ("infinity", url + "/infinity"), ("hosted_vllm", url),
                       ("huggingface", url), ("voyage", url + "/voyage/v1")):
    answer = litellm.rerank(model=f"{provider}/fake", query=query, documents=documents, top_n=3, api_base=base,
                            api_key=key)
    out[provider] = [(row["index"], row["relevance_score"]) for row in answer.results]
print(json.dumps(out))
"""


def test_litellm(server: Any, reranker: StandIn) -> None:
    """In a process of its own: litellm takes seconds to import and changes logging for everybody."""
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("litellm is part of the group 'clients'")
    given = json.dumps([server.url, KEY, QUERY, DOCUMENTS])
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    done = subprocess.run(
        [sys.executable, "-c", LITELLM],
        input=given,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    for provider, rows in answers.items():
        got = [tuple(row) for row in rows]
        assert got == wanted(reranker)[: len(got)], provider
        assert len(got) >= 3
