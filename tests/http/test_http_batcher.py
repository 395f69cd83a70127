"""The batcher alone, without HTTP: right answers in any mix, fairness, cancelling, failures, bounds, stop."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standin import StandIn

from prorank.prompt.encoder import Encoded
from prorank.serve.batcher import Batcher, BatcherClosedError, QueueFullError
from prorank.serve.jobs import Part, tokens_of
from prorank.types import EncodedGroup


def texts(count: int, words: int = 5, salt: str = "") -> list[str]:
    return [" ".join(f"{salt}w{i}x{j}" for j in range(words)) for i in range(count)]


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(1, 200),
)
@settings(max_examples=60, deadline=None)
def test_any_mix_gives_every_document_its_own_margin(requests: list[list[int]], budget: int) -> None:
    """Slicing, mixing and sorting must not be visible in any answer."""
    reranker = StandIn()
    batcher = Batcher(reranker, max_batch_tokens=budget)
    try:
        futures = []
        for number, lengths in enumerate(requests):
            documents = [f"d{number} " * length for length in lengths]
            futures.append(
                (f"query {number}", documents, batcher.submit([reranker.encode(f"query {number}", documents)]))
            )
        for query, documents, future in futures:
            np.testing.assert_array_equal(future.result(10).margins[0], reranker.margins(query, documents))
    finally:
        batcher.close()


def test_windows_of_a_document_stay_together() -> None:
    group = EncodedGroup([1, 2], [[3], [4, 4, 4], [5], [6, 6], [7]], 1)
    part = Part(Encoded(group, (0, 0, 1, 2, 2), 0, 3))
    seen = []
    while (taken := part.take(1)) is not None:
        piece, documents, _ = taken
        seen.append((documents, piece.group.own_ids, piece.row_document))
    assert seen == [([0], [[3], [4, 4, 4]], (0, 0)), ([2], [[6, 6], [7]], (0, 0)), ([1], [[5]], (0,))]
    assert part.tokens_left == 0


def test_a_large_request_is_cut_into_full_steps_that_keep_its_prefix() -> None:
    reranker = StandIn()
    batcher = Batcher(reranker, max_batch_tokens=60)
    encoded = reranker.encode("q", texts(40))
    batcher.submit([encoded]).result(10)
    batcher.close()
    assert reranker.calls == [[10]] * 4  # 6 own tokens a document
    assert {prefix for call in reranker.queries for prefix in call} == {tuple(encoded.group.prefix_ids)}


def test_small_requests_do_not_wait_for_the_whole_of_a_large_one_and_the_large_one_goes_on() -> None:
    reranker = StandIn()
    reranker.hold.clear()
    batcher = Batcher(reranker, max_batch_tokens=60)
    large = batcher.submit([reranker.encode("large", texts(200))])
    wait_for(lambda: reranker.calls)
    small = [batcher.submit([reranker.encode(f"small {i}", texts(8, salt=str(i)))]) for i in range(4)]
    finished: list[str] = []
    large.add_done_callback(lambda _: finished.append("large"))
    for place, future in enumerate(small):
        future.add_done_callback(lambda _, place=place: finished.append(f"small {place}"))
    reranker.hold.set()
    large.result(10)
    batcher.close()
    assert finished == ["small 0", "small 1", "small 2", "small 3", "large"]
    steps = [call[0] for call in reranker.calls]
    assert steps[:9] == [10, 8, 10, 8, 10, 8, 10, 8, 10] or steps[:9] == [10, 10, 8, 10, 8, 10, 8, 10, 8], steps[:9]


def test_the_expected_wait_counts_what_passes_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: ten tokens a step of one second and, while work waits, one second between steps: five a second."""
    clock = [100.0]
    monkeypatch.setattr("prorank.serve.batcher.time", SimpleNamespace(monotonic=lambda: clock[0]))
    reranker = StandIn()
    reranker.hold.clear()

    class Slow:
        def score_groups(self, encoded, *, batch_tokens=None):
            margins = reranker.score_groups(encoded, batch_tokens=batch_tokens)
            clock[0] += 1.0
            return margins

    class Between:
        def waited(self, seconds: float) -> None: ...
        def dropped(self) -> None: ...
        def scored(self, *counts: float) -> None:
            assert counts == (1, 10, 0, 1.0)  # documents, tokens, shared tokens, seconds
            clock[0] += 1.0

    batcher = Batcher(Slow(), max_batch_tokens=1, observer=Between())
    encoded = Encoded(EncodedGroup([1, 2, 3, 4], [[5] * 6], 1), (0,), 0, 1)
    futures = [batcher.submit([encoded]) for _ in range(40)]
    reranker.hold.set()
    for future in futures:
        future.result(10)
    batcher.close()
    assert batcher._speed == pytest.approx(5.0, rel=0.01)  # the first step's 10 has faded


def test_small_requests_share_a_step() -> None:
    reranker = StandIn()
    reranker.hold.clear()
    batcher = Batcher(reranker, max_batch_tokens=200)
    first = batcher.submit([reranker.encode("first", texts(1))])
    wait_for(lambda: reranker.calls)
    rest = [batcher.submit([reranker.encode(f"q{i}", texts(1, salt=str(i)))]) for i in range(5)]
    reranker.hold.set()
    for future in [first, *rest]:
        future.result(10)
    batcher.close()
    assert reranker.calls == [[1], [1, 1, 1, 1, 1]]


def test_a_cancelled_request_leaves_the_queue_at_once() -> None:
    reranker = StandIn()
    reranker.hold.clear()
    batcher = Batcher(reranker, max_batch_tokens=60)
    running = batcher.submit([reranker.encode("running", texts(10))])
    wait_for(lambda: reranker.calls)
    waiting = batcher.submit([reranker.encode("waiting", texts(50))])
    before = batcher.queued_tokens
    assert waiting.cancel()
    assert batcher.queued_requests == 0
    assert batcher.queued_tokens < before
    reranker.hold.set()
    running.result(10)
    batcher.close()
    assert reranker.calls == [[10]], "cancelled documents were scored"
    with pytest.raises(CancelledError):
        waiting.result(0)


def test_a_request_cancelled_while_it_runs_harms_nobody() -> None:
    reranker = StandIn()
    reranker.hold.clear()
    batcher = Batcher(reranker, max_batch_tokens=60)
    running = batcher.submit([reranker.encode("running", texts(30))])
    wait_for(lambda: reranker.calls)
    running.cancel()
    reranker.hold.set()
    other = batcher.submit([reranker.encode("other", texts(3))])
    np.testing.assert_array_equal(other.result(10).margins[0], reranker.margins("other", texts(3)))
    batcher.close()
    assert reranker.calls == [[10], [3]]


def test_one_failing_request_does_not_take_its_neighbours_along() -> None:
    reranker = StandIn()
    poison = tuple(reranker.encode("poison", ["x"]).group.prefix_ids)

    def fail() -> None:
        if poison in reranker.queries[-1]:
            raise RuntimeError("bad weights")

    reranker.fail = fail
    reranker.hold.clear()
    batcher = Batcher(reranker, max_batch_tokens=1000)
    first = batcher.submit([reranker.encode("first", texts(1))])
    wait_for(lambda: reranker.calls)
    futures = {query: batcher.submit([reranker.encode(query, texts(2))]) for query in ("one", "poison", "two")}
    reranker.hold.set()
    first.result(10)
    with pytest.raises(RuntimeError, match="bad weights"):
        futures["poison"].result(10)
    for query in ("one", "two"):
        np.testing.assert_array_equal(futures[query].result(10).margins[0], reranker.margins(query, texts(2)))
    batcher.close()


def test_the_queue_is_bounded_in_tokens_and_an_empty_one_takes_anything() -> None:
    reranker = StandIn()
    reranker.hold.clear()
    batcher = Batcher(reranker, max_queue_tokens=100)
    huge = batcher.submit([reranker.encode("huge", texts(100))])
    with pytest.raises(QueueFullError, match="bound of 100") as caught:
        batcher.submit([reranker.encode("next", texts(1))])
    assert caught.value.retry_after >= 1
    reranker.hold.set()
    huge.result(10)
    wait_for(lambda: batcher.idle)
    batcher.submit([reranker.encode("next", texts(1))]).result(10)
    batcher.close()


def test_the_queue_is_bounded_in_seconds_once_the_speed_is_known() -> None:
    reranker = StandIn(seconds_per_token=0.001)
    batcher = Batcher(reranker, max_batch_tokens=60, max_queue_seconds=0.3)
    batcher.submit([reranker.encode("first", texts(20))]).result(10)
    batcher.submit([reranker.encode("long", texts(150))])
    with pytest.raises(QueueFullError, match="s long"):
        batcher.submit([reranker.encode("late", texts(1))])
    batcher.close()


@pytest.mark.parametrize("drain", [True, False])
def test_close_drains_or_fails_what_waits_and_refuses_what_is_new(drain: bool) -> None:
    reranker = StandIn()
    reranker.hold.clear()
    batcher = Batcher(reranker, max_batch_tokens=60)
    running = batcher.submit([reranker.encode("running", texts(10))])
    wait_for(lambda: reranker.calls)
    waiting = batcher.submit([reranker.encode("waiting", texts(10))])
    closer = threading.Thread(target=batcher.close, kwargs={"drain": drain})
    closer.start()
    wait_for(lambda: batcher._closed)
    with pytest.raises(BatcherClosedError):
        batcher.submit([reranker.encode("new", texts(1))])
    reranker.hold.set()
    closer.join(10)
    assert running.result(10).steps == 1
    if drain:
        assert waiting.result(10).steps == 1
    else:
        with pytest.raises(BatcherClosedError):
            waiting.result(10)


def test_nothing_to_score_is_answered_at_once() -> None:
    reranker = StandIn()
    batcher = Batcher(reranker)
    assert batcher.submit([reranker.encode("q", [])]).result(0).steps == 0
    batcher.close()


def test_tokens_count_the_prefix_once() -> None:
    assert tokens_of(Encoded(EncodedGroup([1, 2, 3], [[4], [5, 6]]), (0, 1), 0, 2)) == 6
