"""The scoring path over the fake backend: planning, unsorting, copies, ties, broken numbers."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorank.backends.fake import FakeBackend
from prorank.scoring import (
    Capabilities,
    NonFiniteMarginError,
    margins_of,
    plan_batches,
    probability,
    rank_order,
    score_groups,
)
from prorank.types import EncodedGroup

IDS = st.lists(st.integers(0, 9), min_size=1, max_size=12)
GROUPS = st.lists(
    st.builds(
        lambda head, query, own: EncodedGroup([*head, *query], own, len(head)),
        st.sampled_from([[], [1, 2, 3], [4]]),
        IDS,
        st.lists(IDS, max_size=9),
    ),
    max_size=6,
)


@given(groups=GROUPS, batch_tokens=st.integers(1, 60))
def test_every_row_gets_its_own_margin(groups: list[EncodedGroup], batch_tokens: int) -> None:
    """Whatever the batches, row i of group g has the margin of its own whole prompt."""
    seen: list[int] = []
    got = score_groups(FakeBackend(), groups, batch_tokens=batch_tokens, on_scored=seen.append)
    for group, margins in zip(groups, got, strict=True):
        alone = [
            margins_of(FakeBackend().label_logits(EncodedGroup([], [[*group.prefix_ids, *own]])))[0]
            for own in group.own_ids
        ]
        assert margins.dtype == np.float32
        np.testing.assert_array_equal(margins, np.array(alone, dtype=np.float32))
    assert sum(seen) == sum(len(group.own_ids) for group in groups)


class Side(FakeBackend):
    """Computes several batches at a time; every one waits until so many have begun."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.capabilities = Capabilities(passes=passes)
        self.together = threading.Barrier(passes)

    def label_logits(self, group: EncodedGroup) -> np.ndarray:
        self.together.wait(timeout=5)
        return super().label_logits(group)


def test_batches_side_by_side_give_the_same_margins_and_little_work_is_shared() -> None:
    group = EncodedGroup([1, 2], [[i, 3] for i in range(8)], 2)
    wanted = score_groups(FakeBackend(), [group])[0]
    scored: list[int] = []
    for batch_tokens in (4, 1024):  # four batches of two rows; two halves of what would be one
        got = score_groups(Side(2), [group], batch_tokens=batch_tokens, on_scored=scored.append)[0]
        np.testing.assert_array_equal(got, wanted)
    assert scored == [2, 2, 2, 2, 4, 4]


def test_a_backend_of_one_batch_at_a_time_gets_little_work_as_one_batch() -> None:
    """20 and 19 tokens: 40 with padding, though only 39 are real."""
    backend = FakeBackend()
    score_groups(backend, [EncodedGroup([1], [[5] * 20, [6] * 19], 1)])
    assert [len(batch.own_ids) for batch in backend.batches] == [2]


class Splitting(FakeBackend):
    """Several of its cores can share a batch; says how many computed each."""

    def __init__(self, cores: int) -> None:
        super().__init__()
        self.capabilities = Capabilities(passes=cores, splits=True)
        self.shares: list[tuple[int, int]] = []

    def label_logits(self, group: EncodedGroup) -> np.ndarray:
        return self.label_logits_on(1, group)

    def label_logits_on(self, cores: int, group: EncodedGroup) -> np.ndarray:
        self.shares.append((cores, len(group.own_ids)))
        return super().label_logits(group)


@pytest.mark.parametrize(
    ("cores", "rows", "wanted"),
    [
        (1, 8, [(1, 4), (1, 4)]),
        (2, 1, [(2, 1)]),
        (2, 4, [(2, 4)]),  # one batch, not two halves
        (2, 5, [(1, 2), (1, 2), (2, 1)]),  # not a full one beside a small one
        (2, 12, [(1, 4), (1, 4), (2, 4)]),
        (4, 8, [(2, 4), (2, 4)]),
        (5, 8, [(2, 4), (2, 4)]),
        (4, 12, [(1, 3), (1, 3), (1, 3), (1, 3)]),
        (4, 20, [(1, 4), (1, 4), (1, 4), (1, 4), (4, 4)]),
    ],
)
def test_cores_without_a_batch_of_their_own_share_one(cores: int, rows: int, wanted: list[tuple[int, int]]) -> None:
    group = EncodedGroup([1, 2], [[i, 3] for i in range(rows)], 2)
    backend = Splitting(cores)
    got = score_groups(backend, [group], batch_tokens=8)[0]
    np.testing.assert_array_equal(got, score_groups(FakeBackend(), [group])[0])
    assert sorted(backend.shares) == sorted(wanted)


def test_an_error_of_one_of_them_comes_out() -> None:
    class Broken(Side):
        def label_logits(self, group: EncodedGroup) -> np.ndarray:
            logits = super().label_logits(group)
            return logits if group.own_ids[0][0] else logits * np.nan

    with pytest.raises(NonFiniteMarginError):
        score_groups(Broken(2), [EncodedGroup([1], [[0], [5]], 1)], batch_tokens=1)


@given(groups=GROUPS, batch_tokens=st.integers(1, 60))
def test_batches_keep_the_budget(groups: list[EncodedGroup], batch_tokens: int) -> None:
    for batch in plan_batches(groups, batch_tokens):
        rows = batch.group.own_ids
        width = max(map(len, rows))
        assert len(rows) * width <= batch_tokens or len(rows) == 1
        assert len(set(map(tuple, rows))) == len(rows), "no row twice in a batch"
        assert list(map(len, rows)) == sorted(map(len, rows), reverse=True)


def test_a_half_full_batch_takes_no_much_shorter_row() -> None:
    group = EncodedGroup([1], [[i] * n for i, n in enumerate([20, 20, 20, 19, 10, 10, 9, 9])], 1)
    lengths = [list(map(len, batch.group.own_ids)) for batch in plan_batches([group], batch_tokens=120)]
    assert lengths == [[20, 20, 20, 19], [10, 10, 9, 9]], "not [20, 20, 20, 19, 10, 10], [9, 9]"


def test_a_large_group_shares_its_whole_prefix_and_small_ones_the_instruction() -> None:
    large = EncodedGroup([1, 2, 3, 4], [[i] for i in range(10)], 2)
    small = [EncodedGroup([1, 2, 9 + i], [[i]], 2) for i in range(4)]
    batches = list(plan_batches([large, *small], batch_tokens=100))
    prefixes = sorted(tuple(batch.group.prefix_ids) for batch in batches)
    assert prefixes == [(1, 2), (1, 2, 3, 4)]


def test_copies_are_computed_once() -> None:
    backend = FakeBackend()
    group = EncodedGroup([1], [[5, 6], [7], [5, 6], [5, 6]])
    (margins,) = score_groups(backend, [group])
    assert margins[0] == margins[2] == margins[3] != margins[1]
    assert sum(len(batch.own_ids) for batch in backend.batches) == 2


def test_margin_is_a_float32_difference() -> None:
    """Hand-derived: 3.5 - 1.25 = 2.25; half precision would lose the last two digits of 2049 - 2048.5."""
    logits = np.array([[1.25, 3.5], [2048.5, 2049.0]], dtype=np.float32)
    np.testing.assert_array_equal(margins_of(logits), np.array([2.25, 0.5], dtype=np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_broken_numbers_are_an_error(bad: float) -> None:
    with pytest.raises(NonFiniteMarginError, match="1 of 2 label logits are not finite"):
        margins_of(np.array([[0, bad], [0, 1]], dtype=np.float32))


def test_equal_margins_keep_the_first_stages_order() -> None:
    assert rank_order([1.0, 2.0, 1.0, 2.0]).tolist() == [1, 3, 0, 2]


@given(st.lists(st.floats(-1e30, 1e30), max_size=20))
def test_probability_is_monotone_and_bounded(margins: list[float]) -> None:
    values = probability(np.sort(margins), 0.7, -0.2)
    assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(values) >= 0).all()


def test_probability_of_zero_is_a_half() -> None:
    assert probability([0.0])[0] == 0.5
    assert probability([2.0], 0.5, -1.0)[0] == 0.5


def test_no_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch_tokens must be at least 1"):
        list(plan_batches([], 0))
