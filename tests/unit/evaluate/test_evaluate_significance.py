"""Significance: against exact enumeration, scipy and hand-derived cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorank.evaluate.significance import bootstrap_interval, compare_paired, holm, randomisation_p


def enumerated_p(a, b):
    """The definition, written out: every way of swapping pairs, one after the other."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    observed = abs(sum(differences))
    assignments = list(itertools.product((1, -1), repeat=len(differences)))
    hits = sum(
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed - 1e-9 for signs in assignments
    )
    return hits / len(assignments)


@pytest.mark.parametrize("seed", range(6))
def test_exact_test_agrees_with_enumeration(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(9).round(2), rng.random(9).round(2)
    a[0] = b[0]  # an equal pair doubles numerator and denominator alike
    assert randomisation_p(a, b) == pytest.approx(enumerated_p(a, b), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_sampled_test_agrees_with_enumeration(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(12), rng.random(12)
    sampled = randomisation_p(a, b, exact=False, permutations=40_000, seed=seed)
    assert sampled == pytest.approx(enumerated_p(a, b), abs=0.01)


def test_sampled_test_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    a = rng.random(60)
    b = a + rng.normal(0.02, 0.1, 60)
    theirs = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=20_000, rng=1,
    ).pvalue  # fmt: skip
    assert randomisation_p(a, b, permutations=50_000) == pytest.approx(theirs, abs=0.012)


def test_p_by_hand():
    """Three differences of 1: only +++ and --- of 8 reach 3, so p = 2/8. Equal values: p = 1."""
    assert randomisation_p([1, 1, 1], [0, 0, 0]) == 0.25
    assert randomisation_p([1, 2], [1, 2]) == 1.0
    assert randomisation_p([], []) == 1.0
    with pytest.raises(ValueError, match="same shape"):
        randomisation_p([1], [1, 2])


def test_a_sampled_p_is_never_0():
    assert randomisation_p(np.ones(40), np.zeros(40), permutations=999) == 1 / 1000


def test_bootstrap_covers_at_its_level():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        low_high = bootstrap_interval(rng.normal(0.3, 1, 50), resamples=400, seed=trial)
        hits += low_high.low <= 0.3 <= low_high.high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_of_constants_and_nothing():
    assert bootstrap_interval([0.5] * 4) == (0.5, 0.5, 0.5)
    assert bootstrap_interval([]) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="level must be between"):
        bootstrap_interval([1.0], level=95)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_interval([1.0], resamples=0)


def test_compare_counts_queries():
    found = compare_paired([1, 0, 0.5], [0, 0.5, 0.5])
    assert (found.better, found.worse, found.equal) == (1, 1, 1)
    assert found.difference.mean == pytest.approx(0.5 / 3)


def test_holm_by_hand():
    """Sorted .01, .02, .04 times 3, 2, 1: .03, .04, .04; input order is kept."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_properties(values):
    a = np.array(values)
    b = np.roll(a, 1)
    assert randomisation_p(a, b) == pytest.approx(randomisation_p(b, a))
    assert 0 < randomisation_p(a, b) <= 1
    interval = bootstrap_interval(a, resamples=200)
    assert a.min() - 1e-12 <= interval.low <= interval.high <= a.max() + 1e-12
    adjusted = holm(values)
    assert all(x >= p for x, p in zip(adjusted, values, strict=True))
