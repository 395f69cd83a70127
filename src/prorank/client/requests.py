"""What both clients share: requests out of arguments, results out of answers, when to try again. No connection."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, TypedDict

from prorank._optional import require
from prorank.backends.retrying import seconds_asked
from prorank.ranking import Ranking, Thresholds, check_count, document_blocks
from prorank.types import Chunk, Document, DocumentLike, RankResult, SentenceWeight

__all__ = ["RankKeywords", "RankOptions", "Requests", "ServerError", "checked", "ranking_of", "scores_of"]

_LONGEST_PAUSE = 30.0
_BLOCK = 100  # documents of an iterator in one request


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


@dataclass(frozen=True)
class RankOptions:
    """What :meth:`prorank.Client.rank` is asked for beside query and documents."""

    top_k: int | None = None
    instruction: str | None = None
    return_documents: bool = True
    model: str | None = None
    min_score: float | None = None
    min_margin: float | None = None
    return_chunks: bool = False
    max_chunks_per_doc: int | None = None
    max_tokens_per_doc: int | None = None
    explain: int | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            check_count(name, getattr(self, name))
        Thresholds.checked(self.min_score, self.min_margin)

    def fields(self, model: str | None) -> dict[str, Any]:
        """As ``/v1/rerank`` names them; what is not given is left to the server.

        Args:
            model: where the options name none.
        """
        # numpy's integers and floats are none that JSON knows
        counts = {name: index(count) for name in _COUNTS if (count := getattr(self, name)) is not None}
        if "top_k" in counts:
            counts["top_n"] = counts.pop("top_k")
        thresholds = Thresholds.checked(self.min_score, self.min_margin)._asdict()
        optional = {"instruction": self.instruction, "model": self.model or model, **thresholds}
        given: dict[str, Any] = {name: value for name, value in optional.items() if value is not None}
        return given | counts | ({"return_chunks": True} if self.return_chunks else {})


class RankKeywords(TypedDict, total=False):
    """The fields of :class:`RankOptions` as arguments."""

    top_k: int | None
    instruction: str | None
    return_documents: bool
    model: str | None
    min_score: float | None
    min_margin: float | None
    return_chunks: bool
    max_chunks_per_doc: int | None
    max_tokens_per_doc: int | None
    explain: int | None


_COUNTS = ("top_k", "max_chunks_per_doc", "max_tokens_per_doc", "explain")


class Requests:
    """The base of both clients."""

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

    def _rank_bodies(
        self, query: str, documents: Iterable[DocumentLike], options: RankOptions
    ) -> Iterator[tuple[int, dict[str, Any], list[Document]]]:
        """(place of the first document, body, documents) of each request; none where there are no documents."""
        more = {"return_documents": False, "return_margins": True, **options.fields(self._model)}
        for offset, block in document_blocks(documents, options.top_k, _BLOCK):
            if block:
                yield offset, {"query": query, "documents": [one.content for one in block], **more}, block

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
        asked = seconds_asked(response.headers.get("retry-after")) or 0.0
        return max(planned, min(asked, _LONGEST_PAUSE))

    def _unreachable(self, error: Exception) -> ServerError:
        return ServerError(f"no answer from {self._options['base_url']}: {type(error).__name__}: {error}")


def checked(response: Any) -> Any:
    """The answer's JSON.

    Raises:
        ServerError: the server refused or failed.
    """
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


def ranking_of(answer: Any, documents: Sequence[Document], with_text: bool) -> Ranking:
    """The results of an answer of ``/v1/rerank``."""
    results = []
    for row in answer["results"]:
        document = documents[row["index"]]
        text = document.content if with_text else None
        chunk = Chunk(**row["chunk"]) if row.get("chunk") else None
        told = tuple(SentenceWeight(**one) for one in row["sentences"]) if row.get("sentences") is not None else None
        results.append(
            RankResult(row["index"], document.doc_id, row["margin"], row["relevance_score"], text, chunk, told)
        )
    return Ranking(results, left_out=answer.get("meta", {}).get("left_out", 0))


def scores_of(answer: Any) -> list[float]:
    """The margins of an answer of ``/v1/score``."""
    return [row["score"] for row in answer["data"]]
