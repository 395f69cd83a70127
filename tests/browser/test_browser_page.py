"""The page as a person uses it: rerank, upload, errors, two models, keyboard only, phone, dark."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standin import Other, StandIn

QUERY = "how do vaccines create immunity"
DOCUMENTS = ["the weather is fine", "cells remember a germ", "a vaccine shows a harmless piece", "bread", "butter"]


def fill(page: Any, documents: list[str] = DOCUMENTS) -> None:
    page.fill("#query", QUERY)
    page.fill("#documents", "\n".join(documents))


def status(page: Any, text: str) -> None:
    page.locator("#status", has_text=text).wait_for()


def column(page: Any, place: int) -> list[int]:
    page.wait_for_selector(".column.reranked .row")
    return [
        int(i)
        for i in page.locator(".column").nth(place).locator(".row").evaluate_all("l => l.map(e => e.dataset.index)")
    ]


def test_rerank_shows_both_orders_bars_and_movement(serve_page: Callable[..., Any]) -> None:
    reranker = StandIn("small")
    page, _ = serve_page(reranker)
    page.wait_for_selector("#server.ok")
    assert page.inner_text("#server-text") == "small"
    assert not page.is_visible("#models"), "one model needs no choice"
    fill(page)
    assert page.inner_text("#count") == "· 5"
    page.click("#go")
    order = reranker.order(QUERY, DOCUMENTS)
    assert column(page, 0) == [0, 1, 2, 3, 4]
    assert column(page, 1) == order
    first = page.locator(".column.reranked .row").first
    score = float(reranker.probability(reranker.margins(QUERY, DOCUMENTS))[order[0]])
    assert first.locator(".value").inner_text() == f"{score:.3f}"
    assert first.locator(".fill").evaluate("e => parseFloat(e.style.width)") == pytest.approx(score * 100, abs=0.01)
    moved = [one.strip() for one in page.locator(".column.reranked .moved .sr").all_text_contents()]
    expected = [("up" if i > p else "down") + f" {abs(i - p)}" if i != p else "unmoved" for p, i in enumerate(order)]
    assert moved == expected
    assert page.inner_text("#status") == f"Done. The best document was number {order[0] + 1}."
    assert "5 documents" in page.inner_text("#summary")


def test_texts_are_never_markup(serve_page: Callable[..., Any]) -> None:
    page, _ = serve_page(StandIn())
    fill(page, ["<img src=x onerror=\"document.title='broken'\">", "<b>bold</b>"])
    page.click("#go")
    column(page, 1)
    assert page.locator(".column img, .column b").count() == 0
    assert page.title() == "ProRank"


def test_the_instruction_reaches_the_model(serve_page: Callable[..., Any]) -> None:
    reranker = StandIn()
    page, _ = serve_page(reranker)
    fill(page)
    page.click("#instruction-box summary")
    assert page.get_attribute("#instruction", "placeholder") == "A relevant passage helps."
    page.fill("#instruction", "prefer the short ones")
    page.click("#go")
    assert column(page, 1) == reranker.order(QUERY, DOCUMENTS, "prefer the short ones")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("list.txt", "one\r\ntwo\nthree\n\n", ["one", "two", "three"]),
        ("paragraphs.txt", "first line\ngoes on\n\nsecond\n\n\nthird", ["first line goes on", "second", "third"]),
        ("list.jsonl", '{"_id": "1", "title": "T", "text": "one"}\n{"text": "two"}\n', ["T one", "two"]),
        ("list.json", '["one", {"text": "two"}]', ["one", "two"]),
    ],
)
def test_upload(serve_page: Callable[..., Any], tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    page, _ = serve_page(StandIn())
    path = tmp_path / name
    path.write_text(content)
    page.set_input_files("#file", str(path))
    status(page, "documents from")
    page.fill("#query", QUERY)
    page.click("#go")
    column(page, 1)
    assert page.locator(".column.input .text").all_text_contents() == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.jsonl", b'{"text": "one"}\n{"text": \n', "broken.jsonl: Line 2 is not valid JSON."),
        ("fields.jsonl", b'{"body": "one"}\n', "fields.jsonl: Line 1 has no \u201ctext\u201d."),
        ("picture.txt", b"\x89PNG\x00\x00", "picture.txt is not a text file."),
        ("empty.txt", b"\n\n", "empty.txt holds no documents."),
    ],
)
def test_files_that_cannot_be_read_say_why(
    serve_page: Callable[..., Any], tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    page, _ = serve_page(StandIn())
    (tmp_path / name).write_bytes(content)
    page.set_input_files("#file", str(tmp_path / name))
    page.wait_for_selector("#documents-error:visible")
    assert page.inner_text("#documents-error") == message
    assert page.get_attribute("#documents", "aria-invalid") == "true"


def test_errors_are_shown_where_they_belong(serve_page: Callable[..., Any]) -> None:
    page, live = serve_page(StandIn(), max_documents=3)
    page.click("#go")
    assert page.inner_text("#query-error") == "Type a query first."
    assert page.evaluate("document.activeElement.id") == "query"
    page.fill("#query", QUERY)
    page.click("#go")
    assert page.inner_text("#documents-error") == "Paste at least one document, or open a file."
    assert not page.is_visible("#query-error")
    fill(page)
    page.click("#go")
    page.wait_for_selector("#status.failed")
    assert page.inner_text("#status") == "5 documents; at most 3 a request."
    fill(page, DOCUMENTS[:3])
    live.stop()
    page.click("#go")
    status(page, "The server does not answer.")
    assert page.get_attribute("#go", "aria-disabled") == "false"


def test_two_models_side_by_side(serve_page: Callable[..., Any]) -> None:
    small, large = StandIn("small"), Other("large")
    page, _ = serve_page({"small": small, "large": large})
    page.wait_for_selector("#models:visible")
    fill(page)
    page.select_option("#other", "large")
    page.click("#go")
    order = small.order(QUERY, DOCUMENTS)
    assert column(page, 1) == order
    assert column(page, 2) == order[::-1]
    assert page.locator(".column h3").all_text_contents() == ["First stage", "small", "large"]
    page.locator(".column").nth(1).locator(".row").first.hover()
    assert page.locator(f'.row.same[data-index="{order[0]}"]').count() == 3


def test_keyboard_only(serve_page: Callable[..., Any]) -> None:
    reranker = StandIn()
    page, _ = serve_page(reranker)
    page.wait_for_selector("#server.ok")

    def focus() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.className"))

    page.keyboard.press("Tab")
    assert focus() == "skip"
    for _ in range(10):
        page.keyboard.press("Tab")
        if focus() == "query":
            break
    assert focus() == "query"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    page.keyboard.type(QUERY)
    for _ in range(4):
        page.keyboard.press("Tab")
    assert focus() == "documents"
    for text in DOCUMENTS:
        page.keyboard.type(text)
        page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    order = reranker.order(QUERY, DOCUMENTS)
    assert column(page, 1) == order
    for _ in range(12):
        page.keyboard.press("Tab")
        if "row" in focus():
            break
    page.keyboard.press("ArrowDown")
    at = "[document.activeElement.closest('.column').className, Number(document.activeElement.dataset.index)]"
    assert page.evaluate(at) == ["column input", 1]
    page.keyboard.press("ArrowRight")
    assert page.evaluate(at) == ["column reranked", 1]
    page.keyboard.press("Home")
    assert page.evaluate(at) == ["column reranked", order[0]]
    page.keyboard.press("Enter")
    assert page.locator(".column.reranked .row.open").count() == 1


def test_copied_calls_do_the_same(serve_page: Callable[..., Any], tmp_path: Path) -> None:
    reranker = StandIn()
    page, _ = serve_page(reranker)
    documents = ['it\'s a "quoted" one', "back\\slash and ünïcödé", "emoji \U0001f600 too", "$HOME `date`"]
    fill(page, documents)
    page.click("#go")
    column(page, 1)
    page.click("#copy-curl")
    status(page, "curl command copied.")
    command = page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    order = reranker.order(QUERY, documents)
    assert [row["index"] for row in json.loads(done.stdout)["results"]] == order
    page.click("#copy-python")
    status(page, "Python code copied.")
    script = tmp_path / "copied.py"
    script.write_text(page.evaluate("navigator.clipboard.readText()"), "utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split("  ", 1)[1] for line in done.stdout.splitlines()] == [documents[i] for i in order]


def test_a_server_with_keys_asks_for_one(serve_page: Callable[..., Any]) -> None:
    page, _ = serve_page(StandIn(), api_keys=("the-right-key",))
    page.wait_for_selector("#key:visible")
    assert page.inner_text("#server-text") == "key needed"
    page.fill("#key", "the-right-key")
    page.press("#key", "Tab")
    page.wait_for_selector("#server.ok")
    fill(page)
    page.click("#go")
    column(page, 1)
    page.click("#copy-curl")
    status(page, "curl command copied.")
    assert "the-right-key" not in page.evaluate("navigator.clipboard.readText()")


def test_many_documents_are_shown_in_parts(serve_page: Callable[..., Any]) -> None:
    page, _ = serve_page(StandIn())
    fill(page, [f"document number {i}" for i in range(200)])
    page.click("#go")
    assert len(column(page, 1)) == 50
    page.locator(".column.reranked .more").click()
    assert len(column(page, 1)) == 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_switch_and_are_readable(serve_page: Callable[..., Any], scheme: str) -> None:
    page, _ = serve_page(StandIn(), scheme=scheme)
    page.wait_for_selector("#server.ok")
    page.click("#example")
    page.click("#go")
    column(page, 1)
    page.wait_for_timeout(400)
    for _ in range(2):  # the system's theme, then the other one
        poor = page.evaluate(CONTRAST)
        assert not poor, poor
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == scheme


@pytest.mark.parametrize("width", [320, 390, 768, 1024])
def test_nothing_overflows_on_small_screens(serve_page: Callable[..., Any], width: int) -> None:
    page, _ = serve_page({"a-model-with-a-long-name": StandIn(), "another": Other()}, width=width, height=800)
    page.wait_for_selector("#server.ok")
    fill(page, [*DOCUMENTS, "Donaudampfschifffahrtsgesellschaftskapitän" * 5])
    page.select_option("#other", "another")
    page.click("#go")
    column(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.locator("button:visible, select:visible, input:visible").evaluate_all(
        "l => l.map(e => e.offsetHeight)"
    )
    assert min(sizes) >= 24, sizes


def test_every_control_has_a_name_and_ids_are_unique(serve_page: Callable[..., Any]) -> None:
    page, _ = serve_page({"a": StandIn("a"), "b": Other("b")})
    page.wait_for_selector("#server.ok")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input:not([hidden]), textarea, select, button, a')]
            .filter(e => !(e.labels && e.labels.length) && !e.getAttribute('aria-label') && !e.textContent.trim())
            .map(e => e.outerHTML)"""
    )
    assert not unnamed
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert page.get_attribute("html", "lang") == "en"
    assert page.get_attribute("#status", "aria-live") == "polite"


def test_the_api_page(serve_page: Callable[..., Any]) -> None:
    page, live = serve_page(StandIn())
    page.goto(f"{live.url}/docs")
    page.wait_for_selector("details")
    assert page.locator("summary code", has_text="/v2/rerank").count() == 1
    page.locator("summary").first.click()
    assert "curl" in page.locator("pre").first.inner_text()


CONTRAST = """() => {
  const parse = c => {
    const m = c.match(/[\\d.]+/g).map(Number);
    return { rgb: m.slice(0, 3), a: m.length > 3 ? m[3] : 1 };
  };
  const lum = ([r, g, b]) => {
    const f = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c.startsWith('rgb') && parse(c).a === 1) return parse(c).rgb;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll('main *, header *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.offsetParent === null || e.classList.contains('sr')) continue;
    const [a, b] = [lum(parse(getComputedStyle(e).color).rgb), lum(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName}.${e.className} ${e.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
