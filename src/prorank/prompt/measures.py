"""Measures of what a model makes of its prompts: one definition for what warmup watches and what `analyze` reports."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["auc", "balanced_accuracy_score"]


def auc(relevant: npt.ArrayLike, irrelevant: npt.ArrayLike) -> float:
    """P(score of a relevant > score of an irrelevant) + P(equal) / 2: the area under the ROC curve; chance is 0.5.

    The Mann-Whitney statistic over all pairs (Hanley and McNeil, 1982). 0.5 where a side is empty.
    """
    above, below = np.asarray(relevant, dtype=np.float64), np.sort(np.asarray(irrelevant, dtype=np.float64))
    if not above.size or not below.size:
        return 0.5
    lower = np.searchsorted(below, above, side="left")
    not_higher = np.searchsorted(below, above, side="right")
    return float((lower + not_higher).sum() / (2 * above.size * below.size))


def balanced_accuracy_score(relevant_right: npt.ArrayLike, irrelevant_right: npt.ArrayLike) -> float:
    """Mean of the shares of relevant and of irrelevant prompts that were answered rightly; a malformed answer is wrong.

    Always the same answer gives 0.5. A side without prompts is left out; 0 where both are empty.

    Args:
        relevant_right: whether each relevant prompt's answer is right.
        irrelevant_right: the same of the irrelevant ones.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (relevant_right, irrelevant_right)]
    shares = [side.mean() for side in sides if side.size]
    return float(np.mean(shares)) if shares else 0.0
