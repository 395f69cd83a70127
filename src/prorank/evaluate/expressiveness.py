"""Expressiveness: how much scores and states tell apart. Each measure is defined here, once.

The paper argues that a small model's representation space is narrow and its scores lack expressiveness, and does not
publish how it measures either; every measure here is ours, after the sources named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.evaluate.understanding import auc

__all__ = [
    "ReliabilityBin",
    "auc",
    "d_prime",
    "distinct_share",
    "effective_rank",
    "expected_calibration_error",
    "mean_cosine",
    "query_auc",
    "reliability_bins",
    "score_entropy",
    "spread",
    "tie_rate",
    "within_share",
]

Scores = Mapping[str, npt.NDArray[np.float32]]
"""query_id -> margins of its candidates."""


class ReliabilityBin(NamedTuple):
    """Pairs whose probability fell into one bin."""

    given: float
    """Mean probability."""
    observed: float
    """Share of relevant ones."""
    pairs: float
    """Pairs in it; where they weigh differently, their weights' sum."""


def distinct_share(scores: Scores) -> float:
    """Mean over queries of (distinct float32 margins) / (candidates); a share, 1 where every margin differs. Ours."""
    return _mean([np.unique(margins).size / margins.size for margins in scores.values() if margins.size])


def tie_rate(scores: Scores) -> float:
    """Mean over queries of (pairs of candidates with equal margins) / (pairs of candidates); a share. Ours."""
    rates = []
    for margins in scores.values():
        if margins.size > 1:
            _, counts = np.unique(margins, return_counts=True)
            rates.append((counts * (counts - 1)).sum() / (margins.size * (margins.size - 1)))
    return _mean(rates)


def score_entropy(probabilities: npt.ArrayLike, bins: int = 20) -> float:
    """-sum p log2 p over ``bins`` equal bins of the probability in [0, 1], all candidates pooled; bits. Ours.

    0 where all candidates get about the same probability, log2(bins) = 4.32 where all bins are used alike. The fixed
    scale makes models comparable; binning the margin itself would hide saturation.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if not values.size:
        return 0.0
    shares = np.histogram(values, bins=bins, range=(0.0, 1.0))[0] / values.size
    shares = shares[shares > 0]
    return float(abs(-(shares * np.log2(shares)).sum()))


def spread(scores: Scores) -> float:
    """Mean over queries of the standard deviation of a query's margins; logits. Ours."""
    return _mean([float(np.std(margins.astype(np.float64))) for margins in scores.values() if margins.size])


def within_share(scores: Scores) -> float:
    """(mean variance of margins within a query) / (variance over all queries' margins); a share. Ours.

    Low where a margin tells which query it is rather than which document. The law of total variance makes it at most
    1 for lists of equal length; 0 where no margin varies.
    """
    arrays = [margins.astype(np.float64) for margins in scores.values() if margins.size]
    if not arrays:
        return 0.0
    pooled = np.concatenate(arrays)
    within = sum(array.size * array.var() for array in arrays) / pooled.size
    return float(within / pooled.var()) if pooled.var() > 0 else 0.0


def d_prime(relevant: npt.ArrayLike, irrelevant: npt.ArrayLike) -> float:
    """(mean of relevant - mean of irrelevant) / sqrt((variance of each, averaged)); standard deviations.

    Sensitivity index of signal detection (Green and Swets, 1966), unequal variances averaged. 0 where a side is empty
    or nothing varies.
    """
    above, below = np.asarray(relevant, dtype=np.float64), np.asarray(irrelevant, dtype=np.float64)
    if not above.size or not below.size:
        return 0.0
    deviation = np.sqrt((above.var() + below.var()) / 2)
    return float((above.mean() - below.mean()) / deviation) if deviation > 0 else 0.0


def query_auc(scores: Scores, relevant: Mapping[str, npt.NDArray[np.bool_]]) -> float:
    """Mean over queries with candidates of both kinds of :func:`auc` within the query; chance is 0.5. Ours."""
    return _mean(
        [
            auc(margins[relevant[query_id]], margins[~relevant[query_id]])
            for query_id, margins in scores.items()
            if 0 < relevant[query_id].sum() < margins.size
        ]
    )


def reliability_bins(
    probabilities: npt.ArrayLike, relevant: npt.ArrayLike, bins: int = 10, *, weights: npt.ArrayLike | None = None
) -> list[ReliabilityBin]:
    """Equal-width bins of the probability that hold anything: mean probability, share of relevant, count.

    Args:
        weights: of the pairs in means and shares, ``(n,)``; None: all the same.
    """
    given, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(relevant, dtype=bool)
    w = np.ones(len(given), dtype=int) if weights is None else np.asarray(weights, dtype=np.float64)
    places = np.clip((given * bins).astype(int), 0, bins - 1)
    return [
        ReliabilityBin(
            float(np.average(given[inside], weights=w[inside])),
            float(np.average(truth[inside], weights=w[inside])),
            w[inside].sum().item(),
        )
        for inside in (places == place for place in range(bins))
        if inside.any()
    ]


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """sum over bins of (count / all) * |mean probability - share of relevant|; probability (Naeini et al., 2015)."""
    total = sum(found.pairs for found in bins)
    return sum(found.pairs / total * abs(found.given - found.observed) for found in bins) if total else 0.0


def effective_rank(states: npt.ArrayLike) -> float:
    """exp(-sum p log p) with p = singular values / their sum, of the centred states ``(n, hidden)``; dimensions.

    Roy and Vetterli (EUSIPCO 2007). Centred, because a common offset is no information about documents. Between 1 and
    min(n - 1, hidden); 0 where the states do not vary. Comparable only for the same number of states.
    """
    matrix = np.asarray(states, dtype=np.float64)
    if matrix.shape[0] < 2:
        return 0.0
    values = np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False)
    values = values[values > values.max(initial=0.0) * 1e-12]
    if not values.size:
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_cosine(states: npt.ArrayLike) -> float:
    """Mean cosine of two different states ``(n, hidden)``, not centred; in [-1, 1].

    Anisotropy (Ethayarajh, EMNLP 2019): near 1 all states point the same way. Computed as
    (|sum of unit vectors|^2 - n) / (n (n - 1)).
    """
    matrix = np.asarray(states, dtype=np.float64)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    units = matrix / np.where(lengths > 0, lengths, 1.0)
    n = len(units)
    return float((np.square(units.sum(axis=0)).sum() - np.square(units).sum()) / (n * (n - 1))) if n > 1 else 0.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
