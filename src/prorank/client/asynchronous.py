"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Unpack

from prorank.client.requests import RankKeywords, RankOptions, Requests, checked, ranking_of, scores_of
from prorank.ranking import Collected, Ranking
from prorank.types import DocumentLike

__all__ = ["AsyncClient"]


class AsyncClient(Requests):
    """:class:`prorank.Client` for asyncio; the same arguments."""

    def __init__(self, url: str = "http://127.0.0.1:8080", **options: Any) -> None:
        super().__init__(url, **options)
        self._http = self._httpx.AsyncClient(**self._options)

    async def rank(
        self,
        query: str,
        documents: Iterable[DocumentLike],
        **options: Unpack[RankKeywords],
    ) -> Ranking:
        """See :meth:`prorank.Client.rank`."""
        given = RankOptions(**options)
        collected = Collected(given.top_k, given.explain)
        for offset, body, block in self._rank_bodies(query, documents, given):
            answer = await self._call("POST", "/v1/rerank", body)
            collected.add(ranking_of(answer, block, given.return_documents), offset)
        return collected.ranking()

    async def score(
        self, pairs: Iterable[tuple[str, str]], *, instruction: str | None = None, model: str | None = None
    ) -> list[float]:
        """See :meth:`prorank.Client.score`."""
        body = self._score_body(pairs, instruction, model)
        return scores_of(await self._call("POST", "/v1/score", body)) if body["text_1"] else []

    async def models(self) -> list[dict[str, Any]]:
        """See :meth:`prorank.Client.models`."""
        return list((await self._call("GET", "/v1/models"))["data"])

    async def ready(self) -> bool:
        """See :meth:`prorank.Client.ready`."""
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
                return checked(response)
            await asyncio.sleep(pause)
