"""What an evaluation is asked for and what it finds: settings, one row a system, paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prorank.data.collection import Collection
from prorank.evaluate.metrics import DEFAULT_MEASURES, Measured
from prorank.evaluate.run import Outcome
from prorank.evaluate.significance import Comparison, Interval

__all__ = ["Evaluation", "Options", "Row", "Tested"]


@dataclass(frozen=True)
class Options:
    """What and how to measure."""

    measures: Sequence[str] = DEFAULT_MEASURES
    """The first one is what the report compares by."""
    min_relevance: int = 1
    """Least relevance that counts as relevant in binary measures."""
    level: float = 0.95
    resamples: int = 10_000
    permutations: int = 100_000
    against: str | None = None
    """A system to compare all others with, besides the first stage."""


class Tested(NamedTuple):
    """A paired comparison and its p, corrected over all systems compared with the same one by the same measure."""

    comparison: Comparison
    p_holm: float


@dataclass(frozen=True)
class Row:
    """One system in the table."""

    outcome: Outcome
    measured: Measured
    intervals: Mapping[str, Interval]
    versus: Mapping[str, Mapping[str, Tested]] = field(default_factory=dict)
    """other system -> measure -> comparison (this minus the other)."""

    @property
    def name(self) -> str:
        return self.outcome.name


@dataclass(frozen=True)
class Evaluation:
    """The result: rows in the order given, the first stage first."""

    collection: Collection
    rows: Sequence[Row]
    options: Options
    first_stage: str
    top_k: int
    record: Mapping[str, Any] = field(default_factory=dict)
