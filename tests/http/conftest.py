"""Servers for tests: in-process for what needs no socket, a real one in a thread for what does."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

for package in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(package, reason=f"{package} is part of the extra 'serve'")

from standin import StandIn  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from prorank.serve.app import ServeApp, create_app  # noqa: E402
from prorank.serve.config import ServeConfig  # noqa: E402
from prorank.serve.server import make_server  # noqa: E402

Serve = Callable[..., TestClient]


@pytest.fixture
def reranker() -> StandIn:
    return StandIn()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(models, **config)`` -> an in-process client."""
    with contextlib.ExitStack() as stack:

        def start(models: object, **config: object) -> TestClient:
            app = create_app(models, ServeConfig(**config))  # type: ignore[arg-type]
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


@pytest.fixture
def http(serve: Serve, reranker: StandIn) -> TestClient:
    return serve(reranker)


class Live:
    """A server on a loopback port, in a thread of this process."""

    def __init__(self, app: ServeApp) -> None:
        self.app = app
        self.server = make_server(app, port=0)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started:
            assert self.thread.is_alive(), "the server ended at its start"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        while httpx.get(f"{self.url}/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(15)
        assert not self.thread.is_alive(), "the server did not stop"


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    """``live(models, **config)`` -> a running server with ``.url``; stopped at the end of the test."""
    running: list[Live] = []

    def start(models: object, **config: object) -> Live:
        running.append(Live(create_app(models, ServeConfig(**config))))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for one in running:
        one.stop()
