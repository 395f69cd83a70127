"""AnswerDotAI's ``rerankers``: a ranker like its own.

from prorank.integrations.rerankers import ProRankRanker

ranker = ProRankRanker()
ranker.rank("how do vaccines work", ["bread is baked", "vaccines train the immune system"]).top_k(1)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prorank._optional import require
from prorank.integrations.ranker import Ranker

require("rerankers", extra="rerankers")
from rerankers.documents import Document  # noqa: E402
from rerankers.models.ranker import BaseRanker  # noqa: E402
from rerankers.results import RankedResults, Result  # noqa: E402
from rerankers.utils import prep_docs  # noqa: E402

if TYPE_CHECKING:
    from prorank.client import Client
    from prorank.reranker import Reranker

__all__ = ["ProRankRanker", "register"]


class ProRankRanker(BaseRanker):  # type: ignore[misc, unused-ignore]
    """Ranks by margin, which is the results' ``score``.

    Args:
        model_name_or_path: name of a model; default: the built-in reranker.
        verbose: as in the library's own rankers; nothing is printed here.
        reranker: a :class:`prorank.Reranker` or :class:`prorank.Client` to use, instead of a name.
        url: of a running ``prorank serve``, instead of a local model.
        api_key: for that server.
        instruction: what relevance means here; default: the template's.
    """

    def __init__(
        self,
        model_name_or_path: str | None = None,
        verbose: int = 1,
        *,
        reranker: Reranker | Client | None = None,
        url: str | None = None,
        api_key: str | None = None,
        instruction: str | None = None,
    ) -> None:
        self.model_name_or_path, self.verbose, self.instruction = model_name_or_path, verbose, instruction
        self.ranking_type = "pointwise"
        self._ranker = Ranker(reranker, model=model_name_or_path, url=url, api_key=api_key)

    def score(self, query: str, doc: str) -> float:
        """The margin of one pair."""
        return float(self._ranker.open().score([(query, doc)], instruction=self.instruction)[0])

    def rank(
        self,
        query: str,
        docs: str | Document | Sequence[str] | Sequence[Document],
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, Any]] | None = None,
    ) -> RankedResults:
        """All documents, best first, with ``score`` and ``rank`` (from 1).

        Raises:
            ValueError: a document is a picture, or there are not as many ids or metadata as documents.
        """
        given = [docs] if isinstance(docs, str | Document) else list(docs)
        for name, more in (("doc_ids", doc_ids), ("metadata", metadata)):
            if more is not None and len(more) != len(given):
                raise ValueError(f"{name}: expected one for each of {len(given)} documents, got {len(more)}")
        documents: list[Document] = prep_docs(given, doc_ids) if given else []
        for document, facts in zip(documents, metadata or (), strict=bool(metadata)):
            document.metadata = facts
        texts = []
        for place, document in enumerate(documents):
            if document.document_type != "text":
                raise ValueError(f"docs[{place}]: expected a text, got document_type {document.document_type!r}")
            texts.append(document.text)
        found = self._ranker.rank(query, texts, top_k=None, instruction=self.instruction)
        results = [Result(documents[one.index], one.margin, rank) for rank, one in enumerate(found, 1)]
        return RankedResults(results=results, query=query, has_scores=True)


def register() -> None:
    """Make the class known to ``rerankers.Reranker(MODEL, model_type="ProRankRanker")``."""
    from rerankers.models import AVAILABLE_RANKERS

    AVAILABLE_RANKERS["ProRankRanker"] = ProRankRanker
