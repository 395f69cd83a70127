"""From a request's body to its answer: admission, parsing, limits, encoding, scoring, layout.

Nothing here computes on the event loop: parsing and layout run in worker threads, encoding in the model's own thread,
scoring in the batcher's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from prorank.prompt.encoded import best_margins
from prorank.scoring import NonFiniteMarginError
from prorank.serve.batcher import BatcherClosedError, FinishedJob, QueueFullError, tokens_of
from prorank.serve.body import BodyReader
from prorank.serve.config import ServeConfig
from prorank.serve.errors import ApiError
from prorank.serve.explaining import left_out
from prorank.serve.formats import FORMATS, ROUTES, Format, parse
from prorank.serve.metrics import Metrics
from prorank.serve.models import LoadedModel, Models
from prorank.serve.tracing import Tracer
from prorank.serve.work import ScoredWork, Work
from prorank.workers import WorkerDiedError

if TYPE_CHECKING:
    from prorank.prompt.encoded import Encoded
    from prorank.scoring import Margins
    from prorank.types import Chunk

__all__ = ["ClientGoneError", "Service"]


class ClientGoneError(Exception):
    """The client closed the connection: nobody is left to be answered."""


class Service:
    """Answers rerank requests of all formats. One per app."""

    def __init__(self, models: Models, config: ServeConfig, metrics: Metrics) -> None:
        self.models = models
        self.config = config
        self.metrics = metrics
        self.draining = False
        self.in_flight = 0
        self._bodies = BodyReader(config)
        self._workers = ThreadPoolExecutor(2, "prorank-json")
        self._tracer = Tracer(config.telemetry)

    async def handle(self, request: Request, path: str) -> Response:
        """Answer one request to ``path``; facts for the log are left in ``request.scope["prorank"]``.

        Raises:
            ApiError: no scores; ``error.format`` of the scope names the body's format by then.
            ClientGoneError: nobody waits any more.
        """
        facts: dict[str, Any] = request.scope.setdefault("prorank", {})
        first = FORMATS[ROUTES[path][0]]
        with self._admitted(), self._tracer.request(path, request.headers) as span:
            try:
                async with self._bodies.read(request, first.invalid) as body:
                    format_, parsed, work = await self._in_worker(parse, path, body)
                facts["format"] = format_.name
                return await self._before_deadline(request, self._answer(format_, parsed, work, facts))
            except ClientDisconnect:
                raise ClientGoneError from None
            finally:
                span.update({name: value for name, value in facts.items() if isinstance(value, str | int | float)})

    def close(self, *, timeout: float | None = None) -> None:
        """Finish what is accepted, then stop all threads."""
        self.models.close(drain=True, timeout=timeout)
        self._workers.shutdown(wait=False, cancel_futures=True)

    # -- one request ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _admitted(self) -> Any:
        if self.in_flight >= self.config.max_queue_requests:
            raise ApiError(429, "overloaded", f"{self.in_flight} requests are already waiting", retry_after=1)
        self.in_flight += 1
        self.metrics.in_flight.inc()
        try:
            yield
        finally:
            self.in_flight -= 1
            self.metrics.in_flight.dec()

    async def _before_deadline(self, request: Request, answer: Any) -> Response:
        """Run ``answer`` until it is done, the client leaves, or time is over; then it is cancelled, queue and all."""
        task = asyncio.ensure_future(answer)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            done, _ = await asyncio.wait(
                {task, gone}, timeout=self.config.request_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if task in done:
                return task.result()  # type: ignore[no-any-return]
            if gone in done:
                raise ClientGoneError
            raise ApiError(
                503, "timeout", f"no answer within {self.config.request_timeout:g} s: the server is busy", retry_after=5
            )
        finally:
            for one in (task, gone):
                one.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _answer(self, format_: Format, parsed: Any, work: Work, facts: dict[str, Any]) -> Response:
        self._check_sizes(work)
        if not work.instruction:
            work = work._replace(instruction=self.config.instruction)
        name = self.models.resolve(work.model)
        facts |= {"model": name, "documents": sum(len(documents) for _, documents in work.lists)}
        async with self._model(name) as model:
            encoded = await self._encode(model, work)
            tokens = sum(map(tokens_of, encoded))
            truncated = sum(one.truncated for one in encoded)
            facts |= {"tokens": tokens, "truncated": truncated}
            self._check_tokens(tokens)
            cut = self.config.auto_truncate if work.cut is None else work.cut
            if truncated and not cut:
                raise _too_long(format_, truncated, model)
            model.metrics.truncated.inc(truncated)
            by_rows = work.return_chunks  # each window comes back with a margin of its own
            scored = await self._score(model, [one.by_rows() for one in encoded] if by_rows else encoded)
            facts["queue_seconds"] = round(scored.queue_seconds, 4)
            told = await self._explained(model, work, encoded, scored, facts) if work.explain else {}
            lay_out = partial(self._lay_out, format_, parsed, work, model, encoded, scored, facts, told)
            workers = model.encoder if work.return_chunks else self._workers  # chunks take the tokenizer
            return await asyncio.get_running_loop().run_in_executor(workers, lay_out)

    def _check_sizes(self, work: Work) -> None:
        config = self.config
        count = sum(len(documents) for _, documents in work.lists)
        if count > config.max_documents:
            raise ApiError(413, "too_large", f"{count} documents; at most {config.max_documents} a request")
        for text in (work.instruction or "", *(query for query, _ in work.lists)):
            if len(text) > config.max_query_chars:
                raise ApiError(
                    413,
                    "too_large",
                    f"query or instruction has {len(text)} characters; at most {config.max_query_chars}",
                )
        index = 0
        for _, documents in work.lists:
            for text in documents:
                if len(text) > config.max_document_chars:
                    raise ApiError(
                        413, "too_large",
                        f"document {index} has {len(text)} characters; at most {config.max_document_chars}",
                    )  # fmt: skip
                index += 1

    def _check_tokens(self, tokens: int) -> None:
        if tokens > self.config.max_request_tokens:
            raise ApiError(
                413, "too_large", f"the request has {tokens} tokens; the bound is {self.config.max_request_tokens}"
            )

    async def _explained(
        self, model: LoadedModel, work: Work, encoded: Sequence[Encoded], scored: FinishedJob, facts: dict[str, Any]
    ) -> dict[int, list[dict[str, Any]]]:
        """Place -> sentences with their weights, of the best documents of the first list."""
        margins = best_margins(encoded[0], scored.margins[0]) if work.return_chunks else scored.margins[0]
        loop = asyncio.get_running_loop()
        shorter = await loop.run_in_executor(model.encoder, left_out, model.reranker, work, margins)
        facts["tokens"] += sum(map(tokens_of, shorter.encoded))
        self._check_tokens(facts["tokens"])
        return shorter.weights((await self._score(model, shorter.encoded)).margins)

    @contextlib.asynccontextmanager
    async def _model(self, name: str) -> AsyncIterator[LoadedModel]:
        async with self.models.use(name) as model:
            yield model

    async def _encode(self, model: LoadedModel, work: Work) -> list[Encoded]:
        return await asyncio.get_running_loop().run_in_executor(model.encoder, _encode, model, work)

    async def _score(self, model: LoadedModel, encoded: Sequence[Encoded]) -> FinishedJob:
        try:
            return await asyncio.wrap_future(model.batcher.submit(encoded))
        except QueueFullError as error:
            raise ApiError(429, "overloaded", str(error), retry_after=error.retry_after) from None
        except BatcherClosedError as error:
            raise ApiError(503, "unavailable", str(error), retry_after=5) from None
        except WorkerDiedError as error:
            told = "the model's worker processes ended over this request; the log says how"
            raise ApiError(503, "unavailable", told, retry_after=5) from error
        except NonFiniteMarginError as error:
            raise ApiError(500, "internal", "the model returned scores that are not numbers") from error

    def _lay_out(
        self,
        format_: Format,
        parsed: Any,
        work: Work,
        model: LoadedModel,
        encoded: Sequence[Encoded],
        scored: FinishedJob,
        facts: dict[str, Any],
        told: dict[int, list[dict[str, Any]]],
    ) -> Response:
        margins, chunk = scored.margins, None
        if work.return_chunks:
            margins = [best_margins(one, rows) for one, rows in zip(encoded, margins, strict=True)]
            chunk = _chunks(model, work, encoded[0], scored.margins[0])
        probabilities = [model.reranker.probability(one) for one in margins]
        shown = [one.astype("float64") for one in margins] if work.raw_scores else probabilities
        outcome = ScoredWork(
            facts.get("request_id", ""),
            model.name,
            facts["tokens"],
            margins,
            shown,
            probabilities,
            work.thresholds,
            chunk,
            told,
        )
        timing = f"queue;dur={scored.queue_seconds * 1000:.1f}, score;dur={scored.score_seconds * 1000:.1f}"
        headers = {"x-prorank-model": model.name, "server-timing": timing}
        if work.thresholds.given:
            headers["x-prorank-left-out"] = str(outcome.left_out)
        return Response(to_json(format_.lay_out(parsed, outcome)), media_type="application/json", headers=headers)

    async def _in_worker(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._workers, function, *args)


def _too_long(format_: Format, truncated: int, model: LoadedModel) -> ApiError:
    limit = model.reranker.encoder.max_length
    texts, them = ("1 text does", "it") if truncated == 1 else (f"{truncated} texts do", "them")
    message = f"{texts} not fit into {limit} tokens with the query; allow truncation or shorten {them}"
    return ApiError(413, "too_long", message) if format_.name == "tei" else format_.invalid(message)


def _encode(model: LoadedModel, work: Work) -> list[Encoded]:
    encode = partial(
        model.reranker.encode, instruction=work.instruction, keep_end=work.keep_end, max_chunks=work.max_chunks_per_doc,
        max_tokens=work.max_tokens_per_doc,
    )  # fmt: skip
    return [encode(query, documents) for query, documents in work.lists]


def _chunks(model: LoadedModel, work: Work, encoded: Encoded, by_row: Margins) -> Callable[[int], Chunk]:
    """Index -> the part of the first list's document that its margin is about."""
    rows = encoded.best_rows([float(margin) for margin in by_row])
    query, documents = work.lists[0]

    def chunk(index: int) -> Chunk:
        (text,) = model.reranker.beginnings([documents[index]], work.max_tokens_per_doc)
        return model.reranker.encoder.chunk(query, text, work.instruction, row=rows[index], keep_end=work.keep_end)

    return chunk


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone (the body has been read: nothing else can arrive)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
