"""The mean over collections of what every system has on each, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from results_tables import MEASURE

if TYPE_CHECKING:
    from prorank.evaluate.evaluation import Evaluation


def averages(evaluations: Sequence[Evaluation], against: Sequence[str] = ("bm25", "minilm")) -> dict[str, Any]:
    """System -> the mean over collections of its nDCG@10, and the paired tests of that mean.

    Each is tested against those of ``against`` that were measured, Holm-corrected over the systems.

    Intervals resample queries within each collection. The randomisation test swaps single queries, weighted so that
    each collection counts the same whatever its size.
    """
    import numpy as np

    from prorank.evaluate.significance import holm, randomisation_p

    values: dict[str, list[Any]] = {}
    for one in evaluations:
        for row in one.rows:
            values.setdefault(row.name, []).append(np.array(list(row.measured.values[MEASURE].values())))
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
