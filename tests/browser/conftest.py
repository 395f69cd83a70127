"""A server with two models and a page in Debian's Chromium, driven by playwright (no browser is downloaded)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="fastapi is part of the extra 'serve'")
playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is part of the group 'browser'")

from live_server import Live  # noqa: E402

from prorank.serve.app import create_app  # noqa: E402
from prorank.serve.config import ServeConfig  # noqa: E402

CHROMIUM = os.environ.get("PRORANK_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")  # not longer: while playwright's loop runs in this thread no asyncio test can
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium here (Debian: apt-get install chromium; or set PRORANK_CHROMIUM)")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def serve_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """``serve_page(models, width=..., scheme=..., **config)`` -> (page, server); a script error fails the test."""
    opened: list[Any] = []
    problems: list[str] = []

    def start(models: Any, *, width: int = 1280, height: int = 900, scheme: str = "light", **config: Any) -> Any:
        live = Live(create_app(models, ServeConfig(**config)))
        opened.append(live)
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if not _own(request.url, live.url) else None)
        page.goto(live.url)
        opened.append(context)
        return page, live

    yield start
    for one in reversed(opened):
        one.stop() if hasattr(one, "stop") else one.close()
    assert not problems, problems


def _own(url: str, server: str) -> bool:
    return url.startswith((server, "data:", "blob:"))
