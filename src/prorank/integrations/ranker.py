"""What the components share: a local reranker or a server, opened when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prorank.client import Client
    from prorank.reranker import Reranker
    from prorank.types import RankResult

__all__ = ["Ranker"]


class Ranker:
    """Ranks texts here or on a server.

    Args:
        reranker: a :class:`prorank.Reranker` or :class:`prorank.Client` that exists already; it wins over the others.
        model: as in :meth:`prorank.Reranker.from_pretrained`; with ``url`` one of the server's models.
        url: of a running ``prorank serve``.
        api_key: for that server.
    """

    def __init__(
        self,
        reranker: Reranker | Client | None = None,
        *,
        model: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._reranker, self._model, self._url, self._api_key = reranker, model, url, api_key

    def open(self) -> Reranker | Client:
        """The reranker; loaded at the first call."""
        if self._reranker is None:
            if self._url is not None:
                from prorank.client import Client

                self._reranker = Client(self._url, model=self._model, api_key=self._api_key)
            else:
                from prorank.reranker import Reranker

                self._reranker = Reranker.from_pretrained(self._model)
        return self._reranker

    def rank(self, query: str, texts: Sequence[str], top_k: int | None, instruction: str | None) -> list[RankResult]:
        """Best first; empty texts are scored like any other.

        Raises:
            ValueError: ``top_k`` below 1.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if not texts:
            return []
        options: dict[str, Any] = {"top_k": top_k, "instruction": instruction, "return_documents": False}
        return self.open().rank(query, list(texts), **options)
