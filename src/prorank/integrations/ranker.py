"""What the components share: a local reranker or a server, opened when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prorank.ranking import Ranking, Thresholds, check_count

if TYPE_CHECKING:
    from prorank.client import Client
    from prorank.reranker import Reranker

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

    def rank(
        self, query: str, texts: Sequence[str], *, top_k: int | None, instruction: str | None, **options: Any
    ) -> Ranking:
        """Best first; empty texts are scored like any other.

        Args:
            options: further ones of :meth:`prorank.Reranker.rank`; None is not passed on.

        Raises:
            ValueError: ``top_k`` below 1, or a threshold that is none.
        """
        check_count("top_k", top_k)
        Thresholds.checked(options.get("min_score"), options.get("min_margin"))
        if not texts:
            return Ranking()
        given = {name: value for name, value in options.items() if value is not None}
        return self.open().rank(
            query, list(texts), top_k=top_k, instruction=instruction, return_documents=False, **given
        )
