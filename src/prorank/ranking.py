"""What a reranker answers: the results in order, and how many were left out by thresholds.

It knows margins and probabilities, no model and no server: the library, the client and the server decide here alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.scoring import rank_order
from prorank.types import RankResult

__all__ = ["NO_THRESHOLDS", "Ranking", "Thresholds", "best_places", "check_count"]


class Ranking(list[RankResult]):
    """Results from most to least relevant: a list that also says how many documents it leaves out."""

    left_out: int
    """Documents below ``min_score`` or ``min_margin``; what ``top_k`` cuts off does not count."""

    def __init__(self, results: Iterable[RankResult] = (), *, left_out: int = 0) -> None:
        super().__init__(results)
        self.left_out = left_out


class Thresholds(NamedTuple):
    """What a result needs to be given. Make one with :meth:`checked`."""

    min_score: float | None = None
    """Least probability, 0 to 1."""
    min_margin: float | None = None
    """Least margin."""

    @classmethod
    def checked(cls, min_score: Any = None, min_margin: Any = None) -> Thresholds:
        """Both as floats.

        Raises:
            ValueError: ``min_score`` is no number from 0 to 1, or ``min_margin`` no finite number.
        """
        if min_score is not None and not (_is_number(min_score) and 0 <= min_score <= 1):
            raise ValueError(f"min_score must be a probability from 0 to 1, got {min_score!r}")
        if min_margin is not None and not (_is_number(min_margin) and math.isfinite(min_margin)):
            raise ValueError(f"min_margin must be a finite number, got {min_margin!r}")
        return cls(
            None if min_score is None else float(min_score),
            None if min_margin is None else float(min_margin),
        )

    @property
    def given(self) -> bool:
        """Whether there is one at all."""
        return self != (None, None)

    def kept(self, margins: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which documents reach both, ``(n,)``."""
        kept = np.ones(len(margins), dtype=bool)
        if self.min_score is not None:
            kept &= probabilities >= self.min_score
        if self.min_margin is not None:
            kept &= margins.astype(np.float64) >= self.min_margin
        return kept


NO_THRESHOLDS = Thresholds()


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def check_count(name: str, count: int | None) -> None:
    """Raises ValueError where a count is given and below 1."""
    if count is not None and count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")


def best_places(
    margins: npt.NDArray[np.float32],
    probabilities: npt.NDArray[np.float64],
    top_k: int | None = None,
    thresholds: Thresholds = NO_THRESHOLDS,
) -> tuple[list[int], int]:
    """Indices of the documents to give, best first, and how many the thresholds leave out.

    Equal margins keep their input order.
    """
    kept = thresholds.kept(margins, probabilities)
    order = [int(i) for i in rank_order(margins) if kept[i]]
    return order[:top_k], int(len(margins) - kept.sum())
