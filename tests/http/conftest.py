"""Servers for tests: in-process for what needs no socket, a real one in a thread for what does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import pytest

for package in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(package, reason=f"{package} is part of the extra 'serve'")

from live_server import Live  # noqa: E402
from standin import StandIn  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from prorank.serve.app import create_app  # noqa: E402
from prorank.serve.config import ServeConfig  # noqa: E402

Serve = Callable[..., TestClient]


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """`prorank serve` sends its records to the stderr of the test that ran it, which is gone after that test."""
    loggers = [logging.getLogger(name) for name in ("prorank", "uvicorn", "uvicorn.error")]
    before = [(one.handlers[:], one.propagate, one.level) for one in loggers]
    yield
    for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


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
