"""The mean over collections of what every system has on each, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Values = Mapping[str, Sequence[float]]
"""System -> a measure of each query, all systems in the same order of queries."""


def averages(collections: Sequence[Values], against: Sequence[str] = ("bm25", "minilm")) -> dict[str, Any]:
    """System -> the mean over collections of its measure, and the paired tests of that mean.

    Each is tested against those of ``against`` that were measured, Holm-corrected over the systems.

    Intervals resample queries within each collection. The randomisation test swaps single queries, weighted so that
    each collection counts the same whatever its size.
    """
    import numpy as np

    from prorank.evaluate.significance import holm, randomisation_p

    values: dict[str, list[Any]] = {}
    for one in collections:
        for name, measured in one.items():
            values.setdefault(name, []).append(np.array(measured))
    weighted = {name: np.concatenate([v / v.size for v in parts]) for name, parts in values.items()}
    found: dict[str, Any] = {name: {**stratified(parts), "versus": {}} for name, parts in values.items()}
    for other in [name for name in against if name in values]:
        names = [name for name in values if name != other]
        p_values = [randomisation_p(weighted[name], weighted[other]) for name in names]
        for name, p, p_holm in zip(names, p_values, holm(p_values), strict=True):
            differences = [a - b for a, b in zip(values[name], values[other], strict=True)]
            found[name]["versus"][other] = {**stratified(differences), "p": p, "p_holm": p_holm}
    return found


def stratified(parts: Sequence[Any], resamples: int = 10_000, seed: int = 0) -> dict[str, float]:
    """Mean of the parts' means with a 95 % percentile bootstrap interval, drawn within each part ``(n,)``."""
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = np.mean([v[rng.integers(0, v.size, (resamples, v.size))].mean(axis=1) for v in parts], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"mean": float(np.mean([v.mean() for v in parts])), "low": float(low), "high": float(high)}
