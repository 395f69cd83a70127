"""Worker processes on this machine: each opens something once and answers what it is asked.

A worker that dies is started anew and asked again, a bounded number of times; an error in one is raised here, as what
it was. It knows no model: what a worker opens is a function that it imports.

    workers = Workers(opener, [(argument of worker 0,), (argument of worker 1,)])
    workers.hello             # what the opener said of the first worker
    workers(question)         # by whichever worker is free; threads may ask at the same time
    workers.watch()           # for a server: who dies idle is started anew before it is asked
    workers.close()           # or let go of it
"""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from prorank.worker import RaisedError, Worker

__all__ = ["Opener", "WorkerDiedError", "Workers"]

logger = logging.getLogger(__name__)

Opener = Callable[..., tuple[Any, Callable[[Any], Any]]]
"""Arguments -> (what to say of what was opened, what answers a question)."""

RETRIES = 2
_LONGEST_PAUSE = 30.0  # seconds between two looks at workers that cannot be opened again


class WorkerDiedError(RuntimeError):
    """Workers died over one and the same work, as often as they may."""


class Workers:
    """Some processes, each with its own copy of what ``opener`` opens.

    They ignore Ctrl-C and SIGTERM, which a terminal or a service manager sends to all of a group, and end when this
    object is closed, is let go of, or its process dies, however it dies.

    Args:
        opener: a function of a module, which the workers import.
        arguments: one tuple a worker; all of it can be pickled.
        retries: how often the same work is given to a new worker after one died over it.
        environment: variables for the workers, on top of this process's.
        room: give the opener, as its last argument, the handle of a file in memory that is empty at first and that all
            workers share; it is gone with them.

    Raises:
        Exception: what the opener raises. The first worker opens before the others start, so that it is told once and
            what it makes in a cache is made once.
        WorkerDiedError: a worker does not live through opening.
    """

    def __init__(
        self, opener: Opener, arguments: Sequence[tuple[Any, ...]], *, retries: int = RETRIES,
        environment: Mapping[str, str] | None = None, room: bool = False,
    ) -> None:  # fmt: skip
        handles = [_memory()] if room else []
        workers = [
            Worker(i, pickle.dumps((opener, (*one, *handles))), dict(environment or {}), handles)
            for i, one in enumerate(arguments)
        ]
        self._workers, self._retries, self._ended = workers, retries, threading.Event()
        self._finalizer = weakref.finalize(self, _close, workers, self._ended, handles)
        try:
            self.hello = self._ask(workers[0], None)
            with ThreadPoolExecutor(len(workers), thread_name_prefix="prorank-open") as pool:
                list(pool.map(lambda worker: self._ask(worker, None), workers[1:]))
        except BaseException:
            self.close()
            raise
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for worker in workers:
            self._free.put(worker)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def alive(self) -> int:
        """How many are open and running."""
        return sum(worker.alive for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids, 0 where one has just died."""
        return [worker.pid for worker in self._workers]

    def __call__(self, question: Any) -> Any:
        """The answer of a free worker; waits for one.

        Raises:
            Exception: what answering raised there.
            WorkerDiedError: workers died over it, or one that had died cannot be opened again.
        """
        worker = self._free.get()
        try:
            return self._ask(worker, pickle.dumps(question))
        finally:
            self._free.put(worker)

    def watch(self, every: float = 1.0) -> None:
        """From now on a worker that dies idle is started anew in the background, told once, as often as need be.

        Args:
            every: seconds between two looks; while workers cannot be opened, the pauses grow.
        """
        threading.Thread(
            target=_watch, args=(weakref.ref(self), self._ended, every), name="prorank-watch", daemon=True
        ).start()

    def mend(self) -> bool:
        """Start anew whoever has died idle; False where one cannot be opened."""
        whole = True
        for _ in self._workers:
            try:
                worker = self._free.get_nowait()
            except Empty:  # the others are at work, and notice for themselves
                break
            try:
                whole &= worker.alive or self._reopened(worker)
            finally:
                self._free.put(worker)
        return whole

    def _reopened(self, worker: Worker) -> bool:
        how, told = worker.end(), worker.troubled
        if not told:
            logger.warning("worker %d ended (%s); starting a new one", worker.number, how)
        started = time.monotonic()
        try:
            worker.opened()
        except (RaisedError, EOFError, OSError) as error:
            worker.end()
            self._tell_trouble(worker, error)
            return False
        if self._ended.is_set():  # closed meanwhile: nobody else ends this one
            worker.kill()
        worker.troubled = False
        logger.warning("worker %d is back after %.1f s", worker.number, time.monotonic() - started)
        return True

    def _tell_trouble(self, worker: Worker, error: Exception) -> None:
        if not worker.troubled and not self._ended.is_set():
            logger.error("worker %d cannot be opened again: %s", worker.number, _reason(error))
        worker.troubled = True

    def close(self) -> None:
        """End all workers, whatever they are doing; who waits for an answer gets an error."""
        self._finalizer()

    def _ask(self, worker: Worker, question: bytes | None) -> Any:
        """The answer; without a question, what the opener said."""
        how = ""
        for died in range(self._retries + 1):
            try:
                hello = worker.opened()
                return hello if question is None else worker.ask(question)
            except RaisedError as error:
                if question is not None and not worker.alive:  # raised by the opener, which had opened it before
                    self._tell_trouble(worker, error)
                    raise WorkerDiedError(f"worker {worker.number} cannot be opened again: {_reason(error)}") from None
                raise error.original from None
            except (EOFError, OSError):
                if self._ended.is_set():
                    raise WorkerDiedError("the workers were closed") from None
            how = worker.end()
            if died < self._retries:
                logger.warning(
                    "worker %d ended (%s); a new one repeats its work (retry %d of %d)",
                    worker.number, how, died + 1, self._retries,
                )  # fmt: skip
        raise WorkerDiedError(
            f"worker {worker.number} ended {self._retries + 1} times over the same work, at last by {how}: "
            "is there enough memory?"
        )


def _reason(error: Exception) -> str:
    return str(error.original if isinstance(error, RaisedError) else error) or "it died"


def _close(workers: Sequence[Worker], ended: threading.Event, handles: list[int]) -> None:
    ended.set()
    for worker in workers:
        worker.kill()  # nothing is lost with it
    while handles:
        os.close(handles.pop())


def _watch(watched: weakref.ref[Workers], ended: threading.Event, every: float) -> None:
    pause = every
    while not ended.wait(pause):
        workers = watched()
        if workers is None:
            return
        pause = every if workers.mend() else min(2 * pause, _LONGEST_PAUSE)
        del workers  # it may be let go of while this thread waits


def _memory() -> int:
    """The handle of a file without a name: in memory where the system has such, else in the temporary folder."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("prorank")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
