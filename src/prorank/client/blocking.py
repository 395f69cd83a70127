"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Unpack

from prorank.client.requests import RankKeywords, RankOptions, Requests, checked, ranking_of, scores_of
from prorank.ranking import Collected, Ranking
from prorank.types import DocumentLike

__all__ = ["Client"]


class Client(Requests):
    """A blocking client; keeps its connections, so make one and use it. Usable from several threads.

    Args:
        url: where the server is.
        api_key: sent as a bearer token.
        model: which of the server's models, unless a call says otherwise; default: the server's default.
        timeout: seconds for one attempt.
        retries: further attempts after 429, 503 or no connection.
        backoff: seconds before the first of them; doubles each time.

    Raises:
        ValueError: ``url`` is not an HTTP address.
        ImportError: httpx is not installed.
    """

    def __init__(self, url: str = "http://127.0.0.1:8080", **options: Any) -> None:
        super().__init__(url, **options)
        self._http = self._httpx.Client(**self._options)

    def rank(
        self,
        query: str,
        documents: Iterable[DocumentLike],
        **options: Unpack[RankKeywords],
    ) -> Ranking:
        """The documents from most to least relevant, as :meth:`prorank.Reranker.rank` gives them.

        Args:
            documents: as there; of an iterator with ``top_k`` 100 go into a request.
            options: ``top_k``, ``instruction``, ``return_documents``, ``min_score``, ``min_margin``,
                ``return_chunks``, ``max_chunks_per_doc``, ``max_tokens_per_doc`` and ``explain`` (at most 10) as there;
                ``model``: which of the server's, for this call.

        Raises:
            TypeError: there is no such option.
            ValueError: a count below 1, a threshold that is none, or a document without text.
            ServerError: the server refused, failed, or was not reached.
        """
        given = RankOptions(**options)
        collected = Collected(given.top_k, given.explain)
        for offset, body, block in self._rank_bodies(query, documents, given):
            answer = self._call("POST", "/v1/rerank", body)
            collected.add(ranking_of(answer, block, given.return_documents), offset)
        return collected.ranking()

    def score(
        self, pairs: Iterable[tuple[str, str]], *, instruction: str | None = None, model: str | None = None
    ) -> list[float]:
        """Margins of (query, document) pairs, in input order.

        Raises:
            ValueError: a pair is none.
            ServerError: the server refused, failed, or was not reached.
        """
        body = self._score_body(pairs, instruction, model)
        return scores_of(self._call("POST", "/v1/score", body)) if body["text_1"] else []

    def models(self) -> list[dict[str, Any]]:
        """The server's models, the default one marked."""
        return list(self._call("GET", "/v1/models")["data"])

    def ready(self) -> bool:
        """Whether the server answers and its default model is loaded; asks once."""
        try:
            return bool(self._http.get("/ready").status_code == 200)
        except self._httpx.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        pauses = self._pauses()
        while True:
            planned = next(pauses, None)
            try:
                response = self._http.request(method, path, json=body)
            except self._no_connection as error:
                if planned is None:
                    raise self._unreachable(error) from error
                time.sleep(planned)
                continue
            except self._httpx.HTTPError as error:  # it may have been scored already: not asked twice
                raise self._unreachable(error) from error
            pause = self._pause_after(response, planned)
            if pause is None:
                return checked(response)
            time.sleep(pause)
