"""How sure a figure is: bootstrap intervals, the paired randomisation test, and Holm's correction.

All of it works on per-query values; queries are the unit that is resampled or swapped. Seeds are fixed, so that the
same values give the same intervals and p-values.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prorank._optional import require

__all__ = ["Comparison", "Interval", "bootstrap_interval", "compare_paired", "holm", "randomisation_p"]

_CHUNK = 4_000_000  # random numbers held at once


class Interval(NamedTuple):
    """A mean and its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """One paired comparison: a minus b."""

    difference: Interval
    p: float
    """Two-sided, of the paired randomisation test."""
    better: int
    """Queries where a is larger."""
    worse: int
    equal: int


def bootstrap_interval(
    values: npt.ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean over queries with its percentile bootstrap interval (Efron, 1979; Sakai, SIGIR 2006).

    Args:
        values: one value a query, ``(n,)``; an empty array gives zeros.

    Raises:
        ValueError: ``level`` is not inside (0, 1), or ``resamples`` < 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    values = np.asarray(values, dtype=np.float64)
    n = values.size
    if n == 0:
        return Interval(0.0, 0.0, 0.0)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, mean, mean)
    stats = require("scipy.stats", extra="evaluate")
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, batch=max(_CHUNK // n, 1), confidence_level=level,
        method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(found.low), float(found.high))


def randomisation_p(
    a: npt.ArrayLike, b: npt.ArrayLike, *, permutations: int = 100_000, seed: int = 0, exact: bool | None = None
) -> float:
    """Two-sided p of the paired randomisation test (Fisher, 1935; Smucker et al., CIKM 2007).

    Under the null hypothesis the two values of a query are exchangeable, so each difference may take either sign.
    p is the share of sign assignments whose mean difference is at least as large, in size, as the observed one;
    sampled, it is (1 + hits) / (1 + permutations), which is never 0.

    Args:
        a, b: paired values, one a query, ``(n,)``.
        exact: enumerate all assignments; by default where there are at most 2^14 of them.

    Raises:
        ValueError: the shapes differ.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired values must have the same shape (n,), got {a.shape} and {b.shape}")
    differences = a - b
    differences = differences[differences != 0]  # swapping equal values changes nothing
    n = differences.size
    if n == 0:
        return 1.0
    # Not scipy's permutation_test: another random stream would move the last digits of published figures.
    observed = abs(differences.sum())
    tolerance = 1e-12 * np.abs(differences).sum()  # sums that differ by rounding alone are equal
    if exact or (exact is None and n <= 14):
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=n)))
        return float((np.abs(signs @ differences) >= observed - tolerance).mean())
    rng = np.random.default_rng(seed)
    hits, done = 0, 0
    while done < permutations:
        size = min(max(_CHUNK // n, 1), permutations - done)
        signs = rng.integers(0, 2, (size, n), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ differences) >= observed - tolerance).sum())
        done += size
    return (1 + hits) / (1 + permutations)


def compare_paired(
    a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, permutations: int = 100_000, seed: int = 0
) -> Comparison:
    """a minus b: mean difference with a bootstrap interval, p, and on how many queries which is better."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    p = randomisation_p(a, b, permutations=permutations, seed=seed)
    differences = a - b
    return Comparison(
        bootstrap_interval(differences, level=level, seed=seed),
        p,
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        equal=int((differences == 0).sum()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm, 1979), in input order: p(i) * (m - i + 1), made monotone, at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(order):
        largest = max(largest, p_values[index] * (len(order) - step))
        adjusted[index] = min(largest, 1.0)
    return adjusted
