"""The page's further options: sentences marked by their weights, the part that was read, a least probability."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is part of the group 'browser'")

from standin import StandIn
from test_browser_page import CONTRAST, QUERY, column, fill, status

DOCUMENTS = [
    "\U0001f600 Cells remember. They answer at once! <b>Bread</b> is baked.",
    "the weather is fine",
    "A vaccine shows a piece. It is harmless.",
]


def explained(page: Any) -> None:
    fill(page, DOCUMENTS)
    page.click("#more-box summary")
    page.check("#explain")
    page.click("#go")
    page.wait_for_selector(".column.reranked mark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_sentences_are_marked_by_their_weights(serve_page: Callable[..., Any], scheme: str) -> None:
    reranker = StandIn()
    page, _ = serve_page(reranker, scheme=scheme)
    explained(page)
    row = page.locator('.column.reranked .row[data-index="0"]')
    assert row.locator("mark").all_text_contents() == [
        "\U0001f600 Cells remember.", "They answer at once!", "<b>Bread</b> is baked.",
    ]  # fmt: skip
    assert row.locator(".text").inner_text() == DOCUMENTS[0]
    assert row.locator(".text b").count() == 0
    (whole,) = reranker.margins(QUERY, DOCUMENTS[:1])
    (without,) = reranker.margins(QUERY, ["\U0001f600 Cells remember. <b>Bread</b> is baked."])
    weight = float(whole - without)
    second = row.locator("mark").nth(1)
    assert second.get_attribute("title") == f"{weight:+.2f} of the margin"
    assert second.get_attribute("class") == ("for" if weight > 0 else "against")
    shares = row.locator("mark").evaluate_all("l => l.map(e => parseInt(e.style.getPropertyValue('--share')))")
    assert max(shares) == 60
    page.wait_for_timeout(300)
    assert not page.evaluate(CONTRAST)
    assert page.locator(".column.input mark").count() == 0


def test_the_part_that_was_read_stands_out(serve_page: Callable[..., Any]) -> None:
    page, _ = serve_page(StandIn())
    fill(page, DOCUMENTS)
    page.click("#more-box summary")
    page.check("#chunks")
    page.click("#go")
    column(page, 1)
    text = page.locator('.column.reranked .row[data-index="1"] .text')
    assert text.locator("span:not(.unread)").all_text_contents() == [DOCUMENTS[1][:9]]
    assert text.locator(".unread").all_text_contents() == [DOCUMENTS[1][9:]]


def test_a_least_probability_leaves_documents_out_and_says_so(serve_page: Callable[..., Any]) -> None:
    reranker = StandIn()
    page, _ = serve_page(reranker)
    fill(page, DOCUMENTS)
    page.click("#more-box summary")
    page.fill("#least", "1.5")
    page.click("#go")
    assert page.inner_text("#least-error") == "A probability is a number from 0 to 1."
    probabilities = sorted(float(p) for p in reranker.probability(reranker.margins(QUERY, DOCUMENTS)))
    least = (probabilities[1] + probabilities[2]) / 2
    page.fill("#least", f"{least:.4f}")
    page.click("#go")
    assert column(page, 1) == reranker.order(QUERY, DOCUMENTS)[:1]
    assert not page.is_visible("#least-error")
    assert "3 documents, 2 left out" in page.inner_text("#summary")
    assert page.locator(".column.input .moved .sr").all_text_contents().count("left out") == 2
    page.fill("#least", "1")
    page.click("#go")
    status(page, "No document reaches the least probability.")
    page.click("#copy-python")
    status(page, "Python code copied.")
    assert ", min_score=1)" in page.evaluate("navigator.clipboard.readText()")
