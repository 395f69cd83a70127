"""LlamaIndex: a node postprocessor.

from prorank.integrations.llamaindex import ProRankRerank

engine = index.as_query_engine(similarity_top_k=50, node_postprocessors=[ProRankRerank(top_n=5)])
"""

from __future__ import annotations

from typing import Any

from prorank._optional import require
from prorank.integrations.ranker import Ranker
from prorank.ranking import Thresholds

require("llama_index.core", extra="llamaindex")
from llama_index.core.bridge.pydantic import Field, PrivateAttr  # noqa: E402
from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle  # noqa: E402

__all__ = ["ProRankRerank"]

_SCORE = "retrieval_score"


class ProRankRerank(BaseNodePostprocessor):
    """Orders nodes by margin, their new score; the first stage's goes to ``retrieval_score`` in the metadata.

    Nodes come back as copies, so that the caller's stay as they are. Neither a language model nor an embedding reads
    ``retrieval_score``, and one that is there already stays: a second reranker sees what the first one saw.
    """

    top_n: int = Field(default=5, ge=1, description="How many nodes to keep.")
    model: str | None = Field(default=None, description="Name of a model; default: the built-in reranker.")
    url: str | None = Field(default=None, description="Of a running prorank serve, instead of a local model.")
    api_key: str | None = Field(default=None, exclude=True, repr=False, description="For that server.")
    instruction: str | None = Field(default=None, description="What relevance means here; default: the template's.")
    similarity_cutoff: float | None = Field(
        default=None, description="Leave out nodes whose new score, the margin, is below this."
    )
    min_score: float | None = Field(default=None, description="Leave out nodes whose probability is below this.")
    return_chunks: bool = Field(
        default=False, description="Put the part of the text that the score is about into the metadata, as chunk."
    )
    keep_retrieval_score: bool = Field(default=True, description="Keep the first stage's score in the metadata.")
    _ranker: Ranker = PrivateAttr()

    def __init__(self, reranker: Any = None, **options: Any) -> None:
        super().__init__(**options)
        Thresholds.checked(self.min_score, self.similarity_cutoff)
        self._ranker = Ranker(reranker, model=self.model, url=self.url, api_key=self.api_key)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex saves it."""
        return "ProRankRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("query_bundle: a reranker needs the query")
        # What an embedding of the node would read: its text, with the metadata that are meant for it.
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        ranked = self._ranker.rank(
            query_bundle.query_str, texts, top_k=self.top_n, instruction=self.instruction,
            min_score=self.min_score, min_margin=self.similarity_cutoff,
            return_chunks=self.return_chunks or None,
        )  # fmt: skip
        kept = []
        for result in ranked:
            given = nodes[result.index]
            facts: dict[str, Any] = {}
            if self.keep_retrieval_score and given.score is not None and _SCORE not in given.node.metadata:
                facts[_SCORE] = given.score
            if result.chunk is not None:
                facts["chunk"] = result.chunk._asdict()
            kept.append(NodeWithScore(node=_with(given.node, facts), score=result.margin))
        return kept


def _with(node: BaseNode, facts: dict[str, Any]) -> BaseNode:
    """A copy of the node that carries facts where neither a language model nor an embedding reads them."""
    if not facts:
        return node
    unread = [*facts]
    changed = {
        "metadata": {**node.metadata, **facts},
        "excluded_embed_metadata_keys": [*dict.fromkeys([*node.excluded_embed_metadata_keys, *unread])],
        "excluded_llm_metadata_keys": [*dict.fromkeys([*node.excluded_llm_metadata_keys, *unread])],
    }
    return node.model_copy(update=changed)
