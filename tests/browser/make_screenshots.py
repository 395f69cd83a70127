"""Take the pictures in docs/images of the page, with real models.

    python tests/browser/make_screenshots.py [[NAME=]MODEL ...]

With two models the dark picture compares them. Look at what comes out before committing it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "http")]  # pytest does this for the tests
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    from live_server import Live
    from playwright.sync_api import sync_playwright

    from prorank.reranker import Reranker
    from prorank.serve.app import create_app

    rerankers: dict[str, Any] = {}
    for text in sys.argv[1:] or [""]:
        name, _, source = text.rpartition("=")
        one = Reranker.from_pretrained(source or None)
        rerankers[name or one.name] = one
    live = Live(create_app(rerankers))
    folder = ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    shots = (("light", 1440, 940, "light"), ("dark", 1440, 940, "dark"), ("phone", 390, 844, "light"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for name, width, height, scheme in shots:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            page.set_default_timeout(120_000)
            page.goto(live.url)
            page.wait_for_selector("#server.ok")
            page.click("#example")
            if scheme == "dark" and len(rerankers) > 1:
                page.select_option("#other", list(rerankers)[1])
            page.click("#go")
            page.wait_for_selector(".column.reranked .row")
            page.mouse.move(5, 5)
            page.wait_for_timeout(800)
            page.screenshot(path=folder / f"page-{name}.png")
        browser.close()
    live.stop()


if __name__ == "__main__":
    main()
