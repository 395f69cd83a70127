"""A client of the server with the library's own shapes: ``Client(url).rank(...)`` answers what ``Reranker.rank`` does.

Needs only httpx (extra ``client``). Requests that the server refuses because it is busy (429, 503), and connections
that cannot be made, are tried again with growing pauses; the server's ``Retry-After`` is respected.

    with Client("http://127.0.0.1:8080") as client:
        for result in client.rank("what is a margin?", ["a margin is ...", "..."], top_k=3):
            print(result.index, result.margin, result.text)
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from operator import index
from typing import Any

from prorank._optional import require
from prorank.types import Document, DocumentLike, RankResult, as_documents

__all__ = ["AsyncClient", "Client", "ServerError"]

_LONGEST_PAUSE = 30.0


class ServerError(RuntimeError):
    """The server refused or failed.

    Args:
        status: the HTTP status; 0 where no answer came.
        request_id: to be found in the server's log.
    """

    def __init__(self, message: str, status: int = 0, request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class _Base:
    """What both clients share: requests out of arguments, results out of answers, when to try again."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 120.0,
        retries: int = 4,
        backoff: float = 0.5,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url must start with http:// or https://, got {url!r}")
        if retries < 0:
            raise ValueError(f"retries must be 0 or more, got {retries}")
        self._httpx = require("httpx", extra="client")
        self._no_connection = (self._httpx.ConnectError, self._httpx.ConnectTimeout)
        self._model = model
        self._retries = retries
        self._backoff = backoff
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._options = {"base_url": url.rstrip("/"), "headers": headers, "timeout": timeout}

    def _rank_body(
        self,
        query: str,
        documents: Iterable[DocumentLike],
        top_k: int | None,
        instruction: str | None,
        model: str | None,
    ) -> tuple[dict[str, Any], list[Document]]:
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        parsed = as_documents(documents)
        body = {
            "query": query,
            "documents": [document.content for document in parsed],
            "return_documents": False,
            "return_margins": True,
        }
        count = None if top_k is None else index(top_k)  # numpy's integers are none that JSON knows
        optional = {"top_n": count, "instruction": instruction, "model": model or self._model}
        return body | {name: value for name, value in optional.items() if value is not None}, parsed

    def _score_body(
        self, pairs: Iterable[tuple[str, str]], instruction: str | None, model: str | None
    ) -> dict[str, Any]:
        pairs = list(pairs)
        for place, pair in enumerate(pairs):
            if isinstance(pair, str) or len(pair) != 2:
                got = "one string" if isinstance(pair, str) else f"{len(pair)} items"
                raise ValueError(f"pair {place} must be (query, document), got {got}")
        body: dict[str, Any] = {
            "text_1": [query for query, _ in pairs],
            "text_2": [document for _, document in pairs],
            "raw_scores": True,
        }
        optional = {"instruction": instruction, "model": model or self._model}
        return body | {name: value for name, value in optional.items() if value is not None}

    def _pauses(self) -> Iterator[float]:
        for attempt in range(self._retries):
            pause = min(self._backoff * 2**attempt, _LONGEST_PAUSE)
            yield pause * random.uniform(0.75, 1.25)  # clients that were refused together must not come back together

    def _pause_after(self, response: Any, planned: float | None) -> float | None:
        """Seconds until the next try; None where there is none."""
        if planned is None or response.status_code not in (429, 503):
            return None
        asked = response.headers.get("retry-after", "")
        return max(planned, min(float(asked), _LONGEST_PAUSE)) if asked.isdecimal() else planned

    def _unreachable(self, error: Exception) -> ServerError:
        return ServerError(f"no answer from {self._options['base_url']}: {type(error).__name__}: {error}")


class Client(_Base):
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
        *,
        top_k: int | None = None,
        instruction: str | None = None,
        return_documents: bool = True,
        model: str | None = None,
    ) -> list[RankResult]:
        """The documents from most to least relevant, as :meth:`prorank.Reranker.rank` gives them.

        Raises:
            ValueError: ``top_k`` below 1, or a document without text.
            ServerError: the server refused, failed, or was not reached.
        """
        body, parsed = self._rank_body(query, documents, top_k, instruction, model)
        if not parsed:
            return []
        return _results(self._call("POST", "/v1/rerank", body), parsed, return_documents)

    def score(
        self, pairs: Iterable[tuple[str, str]], *, instruction: str | None = None, model: str | None = None
    ) -> list[float]:
        """Margins of (query, document) pairs, in input order.

        Raises:
            ValueError: a pair is none.
            ServerError: the server refused, failed, or was not reached.
        """
        body = self._score_body(pairs, instruction, model)
        return _scores(self._call("POST", "/v1/score", body)) if body["text_1"] else []

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
                return _checked(response)
            time.sleep(pause)


class AsyncClient(_Base):
    """:class:`Client` for asyncio; the same arguments."""

    def __init__(self, url: str = "http://127.0.0.1:8080", **options: Any) -> None:
        super().__init__(url, **options)
        self._http = self._httpx.AsyncClient(**self._options)

    async def rank(
        self,
        query: str,
        documents: Iterable[DocumentLike],
        *,
        top_k: int | None = None,
        instruction: str | None = None,
        return_documents: bool = True,
        model: str | None = None,
    ) -> list[RankResult]:
        """See :meth:`Client.rank`."""
        body, parsed = self._rank_body(query, documents, top_k, instruction, model)
        if not parsed:
            return []
        return _results(await self._call("POST", "/v1/rerank", body), parsed, return_documents)

    async def score(
        self, pairs: Iterable[tuple[str, str]], *, instruction: str | None = None, model: str | None = None
    ) -> list[float]:
        """See :meth:`Client.score`."""
        body = self._score_body(pairs, instruction, model)
        return _scores(await self._call("POST", "/v1/score", body)) if body["text_1"] else []

    async def models(self) -> list[dict[str, Any]]:
        """See :meth:`Client.models`."""
        return list((await self._call("GET", "/v1/models"))["data"])

    async def ready(self) -> bool:
        """See :meth:`Client.ready`."""
        try:
            return bool((await self._http.get("/ready")).status_code == 200)
        except self._httpx.HTTPError:
            return False

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        pauses = self._pauses()
        while True:
            planned = next(pauses, None)
            try:
                response = await self._http.request(method, path, json=body)
            except self._no_connection as error:
                if planned is None:
                    raise self._unreachable(error) from error
                await asyncio.sleep(planned)
                continue
            except self._httpx.HTTPError as error:
                raise self._unreachable(error) from error
            pause = self._pause_after(response, planned)
            if pause is None:
                return _checked(response)
            await asyncio.sleep(pause)


def _checked(response: Any) -> Any:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.status_code == 200 and answer is not None:
        return answer
    said = answer.get("detail") or answer.get("error") if isinstance(answer, dict) else None
    if isinstance(said, dict):
        said = said.get("message")
    raise ServerError(
        f"the server answered {response.status_code}: {said or 'no explanation'}",
        response.status_code,
        response.headers.get("x-request-id", ""),
    )


def _results(answer: Any, documents: Sequence[Document], with_text: bool) -> list[RankResult]:
    results = []
    for row in answer["results"]:
        document = documents[row["index"]]
        text = document.content if with_text else None
        results.append(RankResult(row["index"], document.doc_id, row["margin"], row["relevance_score"], text))
    return results


def _scores(answer: Any) -> list[float]:
    return [row["score"] for row in answer["data"]]
