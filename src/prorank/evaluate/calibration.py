"""From margins to probabilities that mean something: Platt's logistic fit on judged candidates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prorank._optional import require

__all__ = ["fit_probability", "prior_weights"]


def prior_weights(relevant: npt.NDArray[np.bool_], prior: float | None) -> npt.NDArray[np.float64]:
    """A weight a pair, ``(n,)``, of mean 1, with which the relevant ones make up the share ``prior``; None: all 1."""
    if prior is None:
        return np.ones(len(relevant))
    share = relevant.mean()
    weights: npt.NDArray[np.float64] = np.where(
        relevant, prior / max(share, 1e-12), (1 - prior) / max(1 - share, 1e-12)
    )
    return weights


def fit_probability(
    margins: npt.ArrayLike, relevant: npt.ArrayLike, *, prior: float | None = None
) -> tuple[float, float]:
    """(slope, intercept) of probability = sigmoid(slope * margin + intercept) by maximum likelihood.

    Targets are Platt's: (n+ + 1) / (n+ + 2) for relevant and 1 / (n- + 2) for other documents, so that separable data
    have a finite answer (Platt 1999, "Probabilistic outputs for support vector machines", section 2.1).

    Args:
        margins: ``(n,)``.
        relevant: ``(n,)``, true or 1 where the document is relevant.
        prior: share of relevant documents that the probability is for, in (0, 1); None: the share in ``relevant``.

    Raises:
        ValueError: one kind is missing, or higher margins do not mean more relevant here.
    """
    optimize = require("scipy.optimize", extra="evaluate")
    m, y = np.asarray(margins, dtype=np.float64), np.asarray(relevant, dtype=bool)
    positive, negative = int(y.sum()), int((~y).sum())
    if not positive or not negative:
        raise ValueError(
            f"calibration: expected relevant and other candidates, got {positive} relevant and {negative} others"
        )
    target = np.where(y, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weights = prior_weights(y, prior)
    scale = float(m.std()) or 1.0

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        z = parameters[0] * m / scale + parameters[1]
        p = np.exp(-np.logaddexp(0.0, -z))
        value = float((weights * (np.logaddexp(0.0, z) - target * z)).sum())
        slopes = weights * (p - target)
        return value, np.array([(slopes * m / scale).sum(), slopes.sum()])

    start = np.array([1.0, np.log((weights[y].sum() + 1) / (weights[~y].sum() + 1))])
    found = optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-6 * len(m)})
    slope, intercept = float(found.x[0]) / scale, float(found.x[1])
    if slope <= 0:
        raise ValueError("calibration: relevant documents have lower margins than the others; is it the right data?")
    return slope, intercept
