"""Haystack: a ranker component.

from prorank.integrations.haystack import ProRankRanker

pipeline.add_component("ranker", ProRankRanker(top_k=5))
pipeline.connect("retriever.documents", "ranker.documents")
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prorank._optional import require
from prorank.integrations.ranker import Ranker
from prorank.ranking import Thresholds, check_count
from prorank.types import RankResult

require("haystack", extra="haystack")
from haystack import Document, component, default_from_dict, default_to_dict  # noqa: E402

__all__ = ["ProRankRanker"]


@component
class ProRankRanker:
    """Orders documents by margin, which becomes their score.

    Args:
        model: name of a model; default: the built-in reranker.
        url: of a running ``prorank serve``, instead of a local model; its key comes from the environment variable
            PRORANK_API_KEY, so that no key is saved with a pipeline.
        top_k: how many documents to keep; None: all.
        instruction: what relevance means here; default: the template's.
        meta_fields_to_embed: metadata that are read before the content.
        score_threshold: leave out documents whose new score, the margin, is below this.
        min_score: leave out documents whose probability is below this.
        return_chunks: put the part of the text that the score is about into the metadata, as ``chunk``.
        reranker: a :class:`prorank.Reranker` or :class:`prorank.Client` to use; it is not saved with a pipeline.
    """

    def __init__(
        self,
        model: str | None = None,
        url: str | None = None,
        top_k: int | None = 10,
        instruction: str | None = None,
        meta_fields_to_embed: list[str] | None = None,
        reranker: Any = None,
        score_threshold: float | None = None,
        min_score: float | None = None,
        return_chunks: bool = False,
    ) -> None:
        import os

        check_count("top_k", top_k)
        self.min_score, self.score_threshold = Thresholds.checked(min_score, score_threshold)
        self.model, self.url, self.top_k, self.instruction = model, url, top_k, instruction
        self.return_chunks = return_chunks
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self._ranker = Ranker(reranker, model=model, url=url, api_key=os.environ.get("PRORANK_API_KEY"))

    def warm_up(self) -> None:
        """Load the model, or open the connection."""
        self._ranker.open()

    def to_dict(self) -> dict[str, Any]:
        """For a pipeline's file."""
        saved: dict[str, Any] = default_to_dict(
            self, model=self.model, url=self.url, top_k=self.top_k, instruction=self.instruction,
            meta_fields_to_embed=self.meta_fields_to_embed, score_threshold=self.score_threshold,
            min_score=self.min_score, return_chunks=self.return_chunks,
        )  # fmt: skip
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ProRankRanker:
        """From a pipeline's file."""
        made: ProRankRanker = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        instruction: str | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """The best documents, best first; copies with the margin as their score.

        Args:
            top_k: instead of the component's.
            instruction: instead of the component's.
            score_threshold: instead of the component's.
        """
        texts = []
        for document in documents:
            fields = [str(document.meta[name]) for name in self.meta_fields_to_embed if document.meta.get(name)]
            texts.append("\n".join([*fields, document.content or ""]))
        ranked = self._ranker.rank(
            query,
            texts,
            top_k=self.top_k if top_k is None else top_k,
            instruction=self.instruction if instruction is None else instruction,
            min_score=self.min_score,
            min_margin=self.score_threshold if score_threshold is None else score_threshold,
            return_chunks=self.return_chunks or None,
        )
        return {"documents": [_scored(documents[result.index], result) for result in ranked]}


def _scored(document: Document, result: RankResult) -> Document:
    meta = document.meta if result.chunk is None else {**document.meta, "chunk": result.chunk._asdict()}
    return replace(document, score=result.margin, meta=meta)
