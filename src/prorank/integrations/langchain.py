"""LangChain: a document compressor, for ``ContextualCompressionRetriever`` and anything else that takes one.

from langchain_classic.retrievers import ContextualCompressionRetriever
from prorank.integrations.langchain import ProRankReranker

retriever = ContextualCompressionRetriever(base_compressor=ProRankReranker(top_k=5), base_retriever=first_stage)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prorank._optional import require
from prorank.integrations.ranker import Ranker
from prorank.ranking import Thresholds

require("langchain_core", extra="langchain")
from langchain_core.callbacks import Callbacks  # noqa: E402
from langchain_core.documents import BaseDocumentCompressor, Document  # noqa: E402
from pydantic import ConfigDict, PrivateAttr  # noqa: E402

__all__ = ["ProRankReranker"]


class ProRankReranker(BaseDocumentCompressor):
    """Orders documents by margin; each comes back with ``margin`` and ``relevance_score`` in its metadata.

    Args:
        reranker: a :class:`prorank.Reranker` or :class:`prorank.Client`; default: made from ``model`` or ``url`` when
            it is first needed.
        model: name of a model; default: the built-in reranker.
        url: of a running ``prorank serve``, instead of a local model.
        api_key: for that server.
        top_k: how many documents to keep; None: all.
        instruction: what relevance means here; default: the template's.
        score_threshold: leave out documents whose ``relevance_score`` is below this probability.
        min_margin: leave out documents whose ``margin`` is below this.
        return_chunks: put the part of the text that the score is about into the metadata, as ``chunk``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    reranker: Any = None
    model: str | None = None
    url: str | None = None
    api_key: str | None = None
    top_k: int | None = None
    instruction: str | None = None
    score_threshold: float | None = None
    min_margin: float | None = None
    return_chunks: bool = False
    _ranker: Ranker = PrivateAttr()

    def model_post_init(self, _context: Any) -> None:
        """Check the thresholds; nothing is loaded yet."""
        Thresholds.checked(self.score_threshold, self.min_margin)
        self._ranker = Ranker(self.reranker, model=self.model, url=self.url, api_key=self.api_key)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002
    ) -> Sequence[Document]:
        """The best documents, best first; copies, so that the caller's metadata stay as they are."""
        ranked = self._ranker.rank(
            query, [d.page_content for d in documents], top_k=self.top_k, instruction=self.instruction,
            min_score=self.score_threshold, min_margin=self.min_margin, return_chunks=self.return_chunks or None,
        )  # fmt: skip
        kept = []
        for result in ranked:
            document = documents[result.index]
            scores: dict[str, Any] = {"margin": result.margin, "relevance_score": result.probability}
            if result.chunk is not None:
                scores["chunk"] = result.chunk._asdict()
            kept.append(document.model_copy(update={"metadata": {**document.metadata, **scores}}))
        return kept
