"""Worker processes on this machine: each opens something once and answers what it is asked.

A worker that dies is started anew and asked again, a bounded number of times; an error in one is raised here, as what
it was. It knows no model: what a worker opens is a function that it imports.

    workers = Workers(opener, [(argument of worker 0,), (argument of worker 1,)])
    workers.hello             # what the opener said of the first worker
    workers(question)         # by whichever worker is free; threads may ask at the same time
    workers.close()           # or let go of it
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

__all__ = ["Opener", "WorkerDiedError", "Workers"]

logger = logging.getLogger(__name__)

Opener = Callable[..., tuple[Any, Callable[[Any], Any]]]
"""Arguments -> (what to say of what was opened, what answers a question)."""

RETRIES = 2
_PATIENCE = 5  # seconds until a worker that should end is ended


class WorkerDiedError(RuntimeError):
    """Workers died over one and the same work, as often as they may."""


class Workers:
    """Some processes, each with its own copy of what ``opener`` opens.

    They ignore Ctrl-C and end when this object is closed, is let go of, or its process dies, however it dies.

    Args:
        opener: a function of a module, which the workers import.
        arguments: one tuple a worker; all of it can be pickled.
        retries: how often the same work is given to a new worker after one died over it.
        environment: variables for the workers, on top of this process's.

    Raises:
        Exception: what the opener raises. The first worker opens before the others start, so that it is told once and
            what it makes in a cache is made once.
        WorkerDiedError: a worker does not live through opening.
    """

    def __init__(
        self, opener: Opener, arguments: Sequence[tuple[Any, ...]], *, retries: int = RETRIES,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        variables = dict(environment or {})
        workers = [_Worker(i, pickle.dumps((opener, one)), variables) for i, one in enumerate(arguments)]
        self._workers, self._retries, self._ended = workers, retries, threading.Event()
        self._finalizer = weakref.finalize(self, _close, workers, self._ended)
        try:
            self.hello = self._ask(workers[0], None)
            with ThreadPoolExecutor(len(workers), thread_name_prefix="prorank-open") as pool:
                list(pool.map(lambda worker: self._ask(worker, None), workers[1:]))
        except BaseException:
            self.close()
            raise
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        for worker in workers:
            self._free.put(worker)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids, 0 where one has just died."""
        return [worker.pid for worker in self._workers]

    def __call__(self, question: Any) -> Any:
        """The answer of a free worker; waits for one.

        Raises:
            Exception: what answering raised there.
            WorkerDiedError: workers died over it.
        """
        worker = self._free.get()
        try:
            return self._ask(worker, pickle.dumps(question))
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """End all workers, whatever they are doing; who waits for an answer gets an error."""
        self._finalizer()

    def _ask(self, worker: _Worker, question: bytes | None) -> Any:
        """The answer; without a question, what the opener said."""
        how = ""
        for died in range(self._retries + 1):
            try:
                hello = worker.opened()
                return hello if question is None else worker.ask(question)
            except _RaisedError as error:
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


class _RaisedError(Exception):
    """Carries what was raised in a worker."""

    def __init__(self, original: Exception) -> None:
        self.original = original


class _Worker:
    """One process and the connection to it; one thread at a time uses it."""

    def __init__(self, number: int, opening: bytes, environment: dict[str, str]) -> None:
        self.number, self._opening, self._environment = number, opening, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._hello: Any = None

    @property
    def pid(self) -> int:
        """Of the process; 0 where there is none."""
        return self._process.pid if self._process is not None else 0

    def opened(self) -> Any:
        """What the opener said; the process is started where there is none."""
        if self._process is None:
            self._start()
            self._hello = self.ask(self._opening)
        return self._hello

    def ask(self, question: bytes) -> Any:
        """The answer.

        Raises:
            EOFError, OSError: the process has died.
            _RaisedError: it has raised.
        """
        assert self._connection is not None
        self._connection.send_bytes(question)
        raised, value = self._connection.recv()
        if raised:
            raise _RaisedError(value)
        return value

    def kill(self) -> None:
        """End the process; who waits for its answer sees that."""
        if (process := self._process) is not None:
            process.kill()
            process.wait()

    def end(self) -> str:
        """End the process, and say how it ended: ``SIGKILL``, or ``exit code 1``."""
        if self._connection is not None:
            self._connection.close()
        if self._process is None:
            return "nothing"
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            path = os.pathsep.join(path or os.getcwd() for path in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from prorank.workers import _work; _work({theirs.fileno()})"],
                stdin=subprocess.DEVNULL, stdout=2, pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path, **self._environment},
            )  # fmt: skip
        self._connection = Connection(ours.detach())


def _close(workers: Sequence[_Worker], ended: threading.Event) -> None:
    ended.set()
    for worker in workers:
        worker.kill()  # nothing is lost with it


def _work(handle: int) -> None:
    """A worker's life: open, then answer. A thread listens, so that the end of the other side ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(handle)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    answer: Callable[[Any], Any] | None = None
    while True:
        question = inbox.get()
        try:
            if answer is None:
                opener, arguments = pickle.loads(question)
                value, answer = opener(*arguments)
            else:
                value = answer(pickle.loads(question))
            told = pickle.dumps((False, value))
        except Exception as error:
            told = pickle.dumps((True, _portable(error)))
        with contextlib.suppress(OSError):  # the listener ends us
            connection.send_bytes(told)


def _listen(connection: Connection, inbox: SimpleQueue[bytes]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(connection.recv_bytes())
    os._exit(0)


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note; where it cannot be pickled, one of the same message."""
    error.add_note("in a worker process:\n" + traceback.format_exc())
    try:
        copy = pickle.loads(pickle.dumps(error))
        return error if str(copy) == str(error) else RuntimeError(str(error))
    except Exception:  # whatever its constructor makes of it
        return RuntimeError(f"{type(error).__name__}: {error}")
