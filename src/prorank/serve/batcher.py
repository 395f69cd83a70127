"""One queue and one scoring thread per model: documents of concurrent requests, mixed into token-budget batches.

The unit of work is a *step*: one call of ``reranker.score_groups`` with about ``max_batch_tokens`` tokens. A request
larger than a step is cut into slices of documents of like length (the very batches that scoring it alone would make);
every slice keeps the request's shared prefix. Requests that fit into what a slice leaves free ride along.

Who goes next: every other step serves the request that has had the fewest tokens so far, so a small request never
waits behind the whole of a large one; the steps between serve the oldest request, so nobody starves.

The batcher knows no HTTP and no asyncio; its answers are :class:`concurrent.futures.Future`. Cancelling such a future
takes the request's unscored documents out of the queue.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Protocol

from prorank.scoring import DEFAULT_BATCH_TOKENS, Margins
from prorank.serve.jobs import FinishedJob, Job, Part, Slice, tokens_of

if TYPE_CHECKING:
    from prorank.prompt.encoder import Encoded

__all__ = ["Batcher", "BatcherClosedError", "FinishedJob", "Observer", "QueueFullError", "tokens_of"]

log = logging.getLogger("prorank.serve")


class QueueFullError(RuntimeError):
    """The queue's bound is reached.

    Args:
        retry_after: seconds until the queue is expected to have room.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BatcherClosedError(RuntimeError):
    """The batcher takes nothing new: the server stops, or the model was dropped."""


class Scorer(Protocol):
    """The part of a :class:`prorank.reranker.Reranker` that a batcher needs."""

    def score_groups(self, encoded: Sequence[Encoded], *, batch_tokens: int | None = None) -> list[Margins]: ...


class Observer(Protocol):
    """Told what happens (metrics); called from the scoring thread and must be quick."""

    def waited(self, seconds: float) -> None: ...
    def scored(self, documents: int, tokens: int, shared_tokens: int, seconds: float) -> None: ...
    def dropped(self) -> None: ...


class Batcher:
    """Scores encoded requests in a thread of its own.

    Args:
        scorer: the reranker.
        max_batch_tokens: padded tokens of one step.
        max_queue_tokens: bound on tokens waiting; an empty queue takes any request.
        max_queue_seconds: bound on the expected wait, once the speed is known.
        observer: told of waits and batches.
        name: the thread's name.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queue_tokens: int = 262_144,
        max_queue_seconds: float = 20.0,
        observer: Observer | None = None,
        name: str = "model",
    ) -> None:
        self._scorer = scorer
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._max_queue_seconds = max_queue_seconds
        self._observer = observer
        self._jobs: list[Job] = []  # oldest first; a job leaves when all its slices are taken, or it was cancelled
        self._running_tokens = 0
        self._changed = threading.Condition()
        self._closed = False
        self._oldest_next = False
        self._speed: float | None = None  # tokens a second while there is work, smoothed
        self._measured_to: float | None = None  # the end of the last step, as long as work is waiting
        self._thread = threading.Thread(target=self._run, name=f"prorank-{name}", daemon=True)
        self._thread.start()

    # -- from any thread -----------------------------------------------------------------------------------------

    @property
    def queued_tokens(self) -> int:
        """Tokens accepted and not yet scored."""
        with self._changed:
            return self._queued_tokens()

    @property
    def queued_requests(self) -> int:
        """Requests with documents that are not yet taken."""
        with self._changed:
            return len(self._jobs)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        with self._changed:
            return not self._jobs and not self._running_tokens

    def submit(self, encoded: Sequence[Encoded]) -> Future[FinishedJob]:
        """Queue one request; the future's result comes when all its documents are scored.

        Raises:
            QueueFullError: a bound is reached.
            BatcherClosedError: after :meth:`close`.
        """
        job = Job([Part(one) for one in encoded], sum(map(tokens_of, encoded)))
        job.unscored = sum(len(part.margins) for part in job.parts)
        job.tokens_left = job.tokens
        if not job.unscored:
            job.future.set_result(FinishedJob([part.margins for part in job.parts], 0.0, 0.0, 0))
            return job.future
        with self._changed:
            if self._closed:
                raise BatcherClosedError("the model takes no more requests")
            self._check_room(job.tokens)
            self._jobs.append(job)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        return job.future

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Take nothing new and end the thread; True when it has ended.

        Args:
            drain: score what is queued first; otherwise those futures fail with :class:`BatcherClosedError`.
        """
        with self._changed:
            self._closed = True
            abandoned = [] if drain else self._jobs[:]
            if not drain:
                self._jobs.clear()
            self._changed.notify()
        for job in abandoned:
            _fail(job.future, BatcherClosedError("the server stopped before this request was scored"))
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- under the lock ------------------------------------------------------------------------------------------

    def _queued_tokens(self) -> int:
        return self._running_tokens + sum(job.tokens_left for job in self._jobs)

    def _check_room(self, tokens: int) -> None:
        queued = self._queued_tokens()
        if not queued:
            return
        seconds = queued / self._speed if self._speed else 0.0
        if queued + tokens > self._max_queue_tokens:
            raise QueueFullError(
                f"the queue holds {queued} tokens; with this request's {tokens} it would pass the bound of "
                f"{self._max_queue_tokens}",
                max(seconds / 2, 1.0),
            )
        if seconds > self._max_queue_seconds:
            raise QueueFullError(
                f"the queue is about {seconds:.0f} s long; the bound is {self._max_queue_seconds:.0f} s",
                max(seconds - self._max_queue_seconds, 1.0),
            )

    def _forget(self, job: Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
        if self._observer is not None:
            self._observer.dropped()

    def _next_step(self) -> list[Slice]:
        """Slices of about ``max_batch_tokens`` padded tokens together; takes them out of the queue."""
        by_service = sorted(self._jobs, key=lambda job: job.served)  # stable: the older of equals first
        order = list(self._jobs) if self._oldest_next else by_service
        self._oldest_next = not self._oldest_next
        budget = self._max_batch_tokens
        slices: list[Slice] = []
        for job in order:
            if slices and job.tokens_left > budget:
                continue  # a large request is cut only where its slice fills a whole step: half-full ones cost speed
            for part in job.parts:
                while budget > 0 and (taken := part.take(budget)) is not None:
                    piece, documents, padded = taken
                    slices.append(Slice(job, part, piece, documents))
                    budget -= padded
                    job.served += padded
            job.tokens_left = sum(part.tokens_left for part in job.parts)
            if not job.tokens_left:
                self._jobs.remove(job)
            if budget <= 0:
                break
        return slices

    # -- the scoring thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._measured_to = None
                    self._changed.wait()
                if not self._jobs:
                    return
                slices = self._next_step()
                self._running_tokens = sum(tokens_of(one.encoded) for one in slices)
            try:
                self._score(slices)
            except Exception as error:  # a bug here must fail these requests, never end the thread
                log.error("scoring step failed", extra={"error": type(error).__name__})
                for one in slices:
                    self._fail_job(one.job, error)
            finally:
                with self._changed:
                    self._running_tokens = 0

    def _score(self, slices: list[Slice]) -> None:
        now = time.monotonic()
        for job in {id(one.job): one.job for one in slices}.values():
            if job.started is None:
                job.started = now
                if self._observer is not None:
                    self._observer.waited(now - job.submitted)
        results: list[Any]
        try:
            results = list(self._call([one.encoded for one in slices]))
        except Exception as error:
            if len(slices) == 1:
                self._fail_job(slices[0].job, error)
                return
            results = []  # one request's trouble must not fail its neighbours: try each alone
            for one in slices:
                try:
                    results.append(self._call([one.encoded])[0])
                except Exception as own_error:
                    results.append(own_error)
        end = time.monotonic()
        seconds, tokens = end - now, sum(tokens_of(one.encoded) for one in slices)
        # What passes between steps counts: under load, requests that are refused take their share of the machine.
        speed = tokens / max(end - (now if self._measured_to is None else self._measured_to), 1e-6)
        self._speed = speed if self._speed is None else 0.8 * self._speed + 0.2 * speed
        self._measured_to = end
        if self._observer is not None:
            shared = sum(len(one.encoded.group.prefix_ids) * (len(one.encoded.group.own_ids) - 1) for one in slices)
            self._observer.scored(sum(len(one.documents) for one in slices), tokens, shared, seconds)
        for job in {id(one.job): one.job for one in slices}.values():
            job.score_seconds += seconds
            job.steps += 1
        for one, margins in zip(slices, results, strict=True):
            if isinstance(margins, Exception):
                self._fail_job(one.job, margins)
                continue
            one.part.margins[one.documents] = margins
            one.job.unscored -= len(one.documents)
            if not one.job.unscored:
                _finish(one.job)

    def _call(self, encoded: Sequence[Encoded]) -> list[Margins]:
        # A step may be larger than what the model likes to compute at once.
        own = getattr(self._scorer, "batch_tokens", self._max_batch_tokens)
        return self._scorer.score_groups(encoded, batch_tokens=min(own, self._max_batch_tokens))

    def _fail_job(self, job: Job, error: Exception) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
        _fail(job.future, error)


def _finish(job: Job) -> None:
    queued = (job.started or job.submitted) - job.submitted
    scored = FinishedJob([part.margins for part in job.parts], queued, job.score_seconds, job.steps)
    _settle(lambda: job.future.set_result(scored))


def _fail(future: Future[FinishedJob], error: Exception) -> None:
    _settle(lambda: future.set_exception(error))


def _settle(answer: Callable[[], None]) -> None:
    with contextlib.suppress(InvalidStateError):  # cancelled (the client left) or failed already: nobody waits for it
        answer()
