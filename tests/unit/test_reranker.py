"""The public face over the fake backend: inputs, results, order, the async twin."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from prorank import Document, Reranker
from prorank.backends.fake import FakeBackend


def test_results_are_ordered_and_carry_ids(fake_reranker: Reranker) -> None:
    documents: list[Any] = ["a", {"_id": "two", "text": "b", "title": "T"}, Document("three", "c"), {"text": "d"}]
    results = fake_reranker.rank("q", documents)
    assert [r.margin for r in results] == sorted((r.margin for r in results), reverse=True)
    assert {r.index: r.doc_id for r in results} == {0: "0", 1: "two", 2: "three", 3: "3"}
    assert {r.index: r.text for r in results} == {0: "a", 1: "T b", 2: "c", 3: "d"}
    margins = fake_reranker.score([("q", text) for text in ("a", "T b", "c", "d")])
    assert [margins[r.index] for r in results] == [r.margin for r in results]
    assert all(0 < r.probability < 1 for r in results)


def test_columns_and_tables_are_lists_of_documents(fake_reranker: Reranker) -> None:
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    wanted = fake_reranker.rank("q", ["a", "b", "c"])
    columns = [pa.array(["a", "b", "c"]), pa.chunked_array([["a"], ["b", "c"]]), np.array(["a", "b", "c"])]
    for column in [*columns, pd.Series(["a", "b", "c"], index=[7, 8, 9]), iter(["a", "b", "c"])]:
        assert fake_reranker.rank("q", column) == wanted
    table = pa.table({"_id": ["x", "y"], "text": ["a", "b"], "title": ["T", ""]})
    assert {r.doc_id: r.text for r in fake_reranker.rank("q", table)} == {"x": "T a", "y": "b"}


def test_top_k_cuts_the_results_not_the_work(fake_reranker: Reranker) -> None:
    texts = [f"document {i}" for i in range(300)]
    everything = fake_reranker.rank("q", texts)
    assert len(everything) == 300
    assert fake_reranker.rank("q", texts, top_k=5) == everything[:5]
    assert fake_reranker.rank("q", texts, top_k=1000) == everything
    assert fake_reranker.rank("q", texts, return_documents=False)[0].text is None
    assert fake_reranker.rank("q", []) == []


def test_the_instruction_is_read(fake_reranker: Reranker) -> None:
    assert fake_reranker.margins("q", ["d"]) != fake_reranker.margins("q", ["d"], instruction="other")


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        (["a"], {"top_k": 0}, "top_k"),
        ([{"title": "x"}], {}, "document 0: expected a string under 'text'"),
        (["a", 5], {}, "document 1"),
        ([{"text": 7}], {}, "document 0"),
        ("a text", {}, "documents: expected a list of documents, got one str"),
        ({"text": "a"}, {}, "documents: expected a list of documents, got one dict"),
    ],
)
def test_bad_input_is_named(fake_reranker: Reranker, documents: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fake_reranker.rank("q", documents, **options)


async def test_arank_leaves_the_loop_free(fake_reranker: Reranker) -> None:
    release = threading.Event()
    original = fake_reranker.backend.label_logits

    def slow(group: Any) -> Any:
        assert release.wait(10)
        return original(group)

    fake_reranker.backend.label_logits = slow  # type: ignore[method-assign]
    pending = asyncio.create_task(fake_reranker.arank("q", ["a", "b"], top_k=1))
    await asyncio.sleep(0.05)
    assert not pending.done()  # and yet this line ran: the loop was free
    release.set()
    assert len(await pending) == 1


def test_a_failing_backend_is_not_hidden(fake_reranker: Reranker) -> None:
    fake_reranker.backend = FakeBackend(fail_with=RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        fake_reranker.rank("q", ["a"])


def test_ten_thousand_documents(fake_reranker: Reranker) -> None:
    texts = [f"document {i}" for i in range(10_000)]
    margins = fake_reranker.margins("q", texts)
    assert margins.shape == (10_000,)
    some = [0, 17, 9_999]
    np.testing.assert_array_equal(margins[some], fake_reranker.margins("q", [texts[i] for i in some]))


def test_fingerprint_follows_what_changes_scores(fake_reranker: Reranker) -> None:
    before = fake_reranker.fingerprint
    assert before == fake_reranker.fingerprint
    fake_reranker.encoder.max_length = 100
    assert before != fake_reranker.fingerprint
