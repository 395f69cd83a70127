"""uvicorn with two habits of ours: a polite stop, and no patience for clients that never finish their request's head.

On SIGTERM or SIGINT the listening socket stays open while accepted requests are finished, so that new ones get a proper
503 in their format (and a load balancer sees ``/ready`` fail) instead of a refused connection. Then the process ends
with status 0. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from prorank.serve.app import ServeApp

__all__ = ["Server", "make_server"]

log = logging.getLogger("prorank.serve")

_LINGER_SECONDS = 0.5
"""How long a stopping server that has nothing left to do still refuses politely."""


class Server(uvicorn.Server):
    """A uvicorn server that drains its application before it stops."""

    def __init__(self, config: uvicorn.Config, app: ServeApp) -> None:
        super().__init__(config)
        self._service = app.service
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """First signal: drain. Second: stop now. (uvicorn's own raises the signal again: the status would not be 0.)"""
        if self._service.draining or self._loop is None:
            self.should_exit = True
            self.force_exit = True
            return
        self._service.draining = True
        self._loop.call_soon_threadsafe(self._start_drain)

    def _start_drain(self) -> None:
        self._drain = asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        log.info("stopping: finishing accepted requests")
        started = time.monotonic()
        deadline = started + self._service.config.shutdown_timeout
        while time.monotonic() < deadline and not self.should_exit:
            if not self._service.in_flight and time.monotonic() - started >= _LINGER_SECONDS:
                break
            await asyncio.sleep(0.05)
        self.should_exit = True


class _TimedProtocol(H11Protocol):
    """Closes a connection whose request head is not complete in time (slow-loris); uvicorn has no such limit."""

    head_timeout = 15.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_task: asyncio.TimerHandle | None = None
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()  # the head is here: the body has its own time limit
        elif self._head_task is None and (before is None or before.response_complete):
            self._wait_for_head()  # the beginning of a further request on this connection

    def _wait_for_head(self) -> None:
        self._head_task = self.loop.call_later(self.head_timeout, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_task is not None:
            self._head_task.cancel()
            self._head_task = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


def make_server(app: ServeApp, *, host: str = "127.0.0.1", port: int = 8080, **options: Any) -> Server:
    """A server that is ready to ``run()``.

    Args:
        options: further settings of :class:`uvicorn.Config`, such as ``ssl_certfile``.
    """
    config = app.service.config
    protocol = type("TimedProtocol", (_TimedProtocol,), {"head_timeout": config.body_timeout})
    uvicorn_config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=None,
        backlog=512,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=64 * 1024,
        **options,
    )
    return Server(uvicorn_config, app)
