"""One worker process, from both sides: who starts and asks it, and its own life.

See :mod:`prorank.workers`, which keeps several.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

__all__ = ["RaisedError", "Worker", "work"]

_PATIENCE = 5  # seconds until a worker that should end is ended


class RaisedError(Exception):
    """Carries what was raised in a worker."""

    def __init__(self, original: Exception) -> None:
        self.original = original


class Worker:
    """One process and the connection to it; one thread at a time uses it."""

    def __init__(self, number: int, opening: bytes, environment: dict[str, str], handles: Sequence[int]) -> None:
        self.number, self._opening, self._environment, self._handles = number, opening, environment, handles
        self.troubled = False  # it could not be opened again, and that was told
        self._opened = False
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._hello: Any = None

    @property
    def pid(self) -> int:
        """Of the process; 0 where there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Open, and running."""
        process = self._process
        return self._opened and process is not None and process.poll() is None

    def opened(self) -> Any:
        """What the opener said; the process is started where there is none."""
        if not self._opened:
            self._start()
            try:
                self._hello = self.ask(self._opening)
            except RaisedError:
                self.end()
                raise
            self._opened = True
        return self._hello

    def ask(self, question: bytes) -> Any:
        """The answer.

        Raises:
            EOFError, OSError: the process has died.
            RaisedError: it has raised.
        """
        assert self._connection is not None
        self._connection.send_bytes(question)
        raised, value = self._connection.recv()
        if raised:
            raise RaisedError(value)
        return value

    def kill(self) -> None:
        """End the process; who waits for its answer sees that."""
        if (process := self._process) is not None:
            process.kill()
            process.wait()

    def end(self) -> str:
        """End the process, and say how it ended: ``SIGKILL``, or ``exit code 1``."""
        self._opened = False
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
                [sys.executable, "-c", f"from prorank.worker import work; work({theirs.fileno()})"],
                stdin=subprocess.DEVNULL, stdout=2, pass_fds=[theirs.fileno(), *self._handles],
                env={**os.environ, "PYTHONPATH": path, **self._environment},
            )  # fmt: skip
        self._connection = Connection(ours.detach())


def work(handle: int) -> None:
    """A worker's life: open, then answer. A thread listens, so that the end of the other side ends it at once."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
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
