"""The components of other frameworks order as the reranker does, keep what they were given, and save themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prorank import Reranker
from prorank.backends.fake import FakeBackend
from prorank.prompt.derive import resolve_template
from prorank.prompt.encoder import PromptEncoder

TEXTS = ["bread is baked", "vaccines train the immune system", "", "memory cells", "a town"]
QUERY = "how do vaccines work"


@pytest.fixture(scope="module")
def reranker(base_folder: Path) -> Reranker:
    from prorank.model.base import load_tokenizer

    tokenizer = load_tokenizer(str(base_folder))
    return Reranker(FakeBackend(), PromptEncoder(tokenizer, resolve_template(None, tokenizer)))


@pytest.fixture(scope="module")
def wanted(reranker: Reranker) -> list[tuple[int, float]]:
    return [(result.index, result.margin) for result in reranker.rank(QUERY, TEXTS)]


def test_langchain(reranker: Reranker, wanted: list[tuple[int, float]]) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.documents import Document

    from prorank.integrations.langchain import ProRankReranker

    documents = [Document(page_content=text, metadata={"n": i}) for i, text in enumerate(TEXTS)]
    compressor = ProRankReranker(reranker=reranker, top_k=3)
    found = compressor.compress_documents(documents, QUERY)
    assert [(d.metadata["n"], d.metadata["margin"]) for d in found] == wanted[:3]
    assert all(0 < d.metadata["relevance_score"] < 1 for d in found)
    assert all(set(d.metadata) == {"n"} for d in documents), "the caller's documents stay as they are"
    again = compressor.compress_documents(found, QUERY)
    assert [d.metadata for d in again] == [d.metadata for d in found], "scores in the metadata are not read"
    assert compressor.compress_documents([], QUERY) == []
    with pytest.raises(ValueError, match="top_k"):
        ProRankReranker(reranker=reranker, top_k=0).compress_documents(documents, QUERY)


async def test_langchain_async(reranker: Reranker, wanted: list[tuple[int, float]]) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.documents import Document

    from prorank.integrations.langchain import ProRankReranker

    documents = [Document(page_content=text, metadata={"n": i}) for i, text in enumerate(TEXTS)]
    found = await ProRankReranker(reranker=reranker).acompress_documents(documents, QUERY)
    assert [d.metadata["n"] for d in found] == [index for index, _ in wanted]


def test_llamaindex(reranker: Reranker, wanted: list[tuple[int, float]]) -> None:
    pytest.importorskip("llama_index.core")
    from llama_index.core.schema import NodeWithScore, TextNode

    from prorank.integrations.llamaindex import ProRankRerank

    def nodes() -> list[Any]:
        return [NodeWithScore(node=TextNode(text=text, id_=str(i)), score=0.5) for i, text in enumerate(TEXTS)]

    found = ProRankRerank(reranker, top_n=2).postprocess_nodes(nodes(), query_str=QUERY)
    assert [(int(n.node.node_id), n.score) for n in found] == wanted[:2]
    assert [n.node.metadata["retrieval_score"] for n in found] == [0.5, 0.5]
    plain = ProRankRerank(reranker, top_n=2, keep_retrieval_score=False).postprocess_nodes(nodes(), query_str=QUERY)
    assert all("retrieval_score" not in n.node.metadata for n in plain)
    with pytest.raises(ValueError, match="query"):
        ProRankRerank(reranker).postprocess_nodes(nodes())
    assert "api_key" not in ProRankRerank(reranker, url="http://localhost:1", api_key="secret").to_dict()


def test_llamaindex_leaves_the_callers_nodes_alone(reranker: Reranker) -> None:
    """Whatever is reranked again, and through however many rerankers, scores as at first."""
    pytest.importorskip("llama_index.core")
    from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

    from prorank.integrations.llamaindex import ProRankRerank

    nodes = [
        TextNode(
            text=text, id_=str(i), metadata={"title": f"T{i}", "secret": "x"}, excluded_embed_metadata_keys=["secret"]
        )
        for i, text in enumerate(TEXTS)
    ]
    nodes[1].metadata["retrieval_score"] = 7.5  # somebody's own: it is read as before, and kept
    before = [node.model_dump() for node in nodes]
    read = {node.node_id: node.get_content(MetadataMode.LLM) for node in nodes}
    component = ProRankRerank(reranker, top_n=len(TEXTS))

    def ranked(given: list[Any]) -> list[Any]:
        return component.postprocess_nodes(given, query_str=QUERY)

    def with_scores() -> list[Any]:
        return [NodeWithScore(node=n, score=0.9 if i else None) for i, n in enumerate(nodes)]

    first, second = ranked(with_scores()), ranked(with_scores())
    in_a_row = ranked(ranked(with_scores()))
    wanted = [(one.node.node_id, one.score) for one in first]
    assert [(one.node.node_id, one.score) for one in second] == wanted
    assert [(one.node.node_id, one.score) for one in in_a_row] == wanted
    assert [node.model_dump() for node in nodes] == before
    for one in (*first, *in_a_row):
        place = int(one.node.node_id)
        assert one.node.get_content(MetadataMode.LLM) == read[one.node.node_id]
        kept = one.node.metadata.get("retrieval_score")
        assert place == 0 or kept == {1: 7.5}.get(place, 0.9), "the first stage's, after two rerankers too"
    assert "retrieval_score" not in next(one.node for one in first if one.node.node_id == "0").metadata


def test_haystack(reranker: Reranker, wanted: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("haystack")
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    from haystack import Document, Pipeline

    from prorank.integrations.haystack import ProRankRanker

    documents = [Document(content=text, meta={"n": i, "title": "T"}) for i, text in enumerate(TEXTS)]
    ranker = ProRankRanker(reranker=reranker, top_k=4)
    ranker.warm_up()
    found = ranker.run(query=QUERY, documents=documents)["documents"]
    assert [(d.meta["n"], d.score) for d in found] == wanted[:4]
    assert len(ranker.run(query=QUERY, documents=documents, top_k=1)["documents"]) == 1
    titled = ProRankRanker(reranker=reranker, meta_fields_to_embed=["title"]).run(query=QUERY, documents=documents)
    expected = reranker.rank(QUERY, [f"T\n{text}" for text in TEXTS])
    assert [d.meta["n"] for d in titled["documents"]] == [result.index for result in expected]
    before = [document.to_dict() for document in documents]
    twice = ProRankRanker(reranker=reranker, top_k=4, meta_fields_to_embed=["title", "score", "n"])
    first = twice.run(query=QUERY, documents=documents)["documents"]
    again = twice.run(query=QUERY, documents=first)["documents"]
    assert [(d.meta["n"], d.score) for d in again] == [(d.meta["n"], d.score) for d in first]
    assert [document.to_dict() for document in documents] == before, "the caller's documents stay as they are"
    with pytest.raises(ValueError, match="top_k"):
        ranker.run(query=QUERY, documents=documents, top_k=0)
    pipeline = Pipeline()
    pipeline.add_component("ranker", ProRankRanker(model="some-model", top_k=3, instruction="Recent ones."))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["prorank.integrations.haystack"]).get_component("ranker")
    assert (again.model, again.top_k, again.instruction) == ("some-model", 3, "Recent ones.")
    with pytest.raises(ValueError, match="top_k"):
        ProRankRanker(top_k=0)


def test_thresholds_by_the_frameworks_own_names(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    for package in ("langchain_core", "llama_index.core", "haystack"):
        pytest.importorskip(package)
    from haystack import Document as HaystackDocument
    from langchain_core.documents import Document
    from llama_index.core.schema import NodeWithScore, TextNode

    from prorank.integrations.haystack import ProRankRanker
    from prorank.integrations.langchain import ProRankReranker
    from prorank.integrations.llamaindex import ProRankRerank

    ranked = reranker.rank(QUERY, TEXTS)
    third = ranked[2]
    wanted = [result.index for result in ranked[:3]]
    documents = [Document(page_content=text, metadata={"n": i}) for i, text in enumerate(TEXTS)]
    for options in ({"score_threshold": third.probability}, {"min_margin": third.margin}):
        found = ProRankReranker(reranker=reranker, **options).compress_documents(documents, QUERY)
        assert [d.metadata["n"] for d in found] == wanted
    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(i))) for i, text in enumerate(TEXTS)]
    for options in ({"similarity_cutoff": third.margin}, {"min_score": third.probability}):
        kept = ProRankRerank(reranker, top_n=5, **options).postprocess_nodes(nodes, query_str=QUERY)
        assert [int(n.node.node_id) for n in kept] == wanted
    texts = [HaystackDocument(content=text, meta={"n": i}) for i, text in enumerate(TEXTS)]
    for options in ({"score_threshold": third.margin}, {"min_score": third.probability}):
        component = ProRankRanker(reranker=reranker, **options)
        assert [d.meta["n"] for d in component.run(query=QUERY, documents=texts)["documents"]] == wanted
        assert ProRankRanker.from_dict(component.to_dict()).to_dict() == component.to_dict()
    strict = component.run(query=QUERY, documents=texts, score_threshold=ranked[0].margin)["documents"]
    assert [d.meta["n"] for d in strict] == wanted[:1]
    for make in (
        lambda: ProRankReranker(reranker=reranker, score_threshold=1.5),
        lambda: ProRankRerank(reranker, min_score=-1),
        lambda: ProRankRanker(reranker=reranker, min_score=2),
    ):
        with pytest.raises(ValueError, match="min_score must be a probability from 0 to 1"):
            make()
