"""What every engine's workers do: load a reranker once, and score pairs as :meth:`prorank.Reranker.score` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prorank.batch.parts import Scores
from prorank.batch.rows import Row
from prorank.model.options import LoadOptions
from prorank.reranker import Reranker

__all__ = ["Facts", "RowScorer"]


class Facts(NamedTuple):
    """What a job has to know of its model."""

    model: str
    backend: str
    fingerprint: str
    """Equal ones give equal scores."""


class RowScorer:
    """Scores rows; those of one query share their prompt's beginning.

    Args:
        options: how the model is loaded.
        instruction: what relevance means here; None: the template's.

    Raises:
        ValueError: the model cannot be loaded; the message says why.
    """

    def __init__(self, options: LoadOptions, instruction: str | None = None) -> None:
        self.reranker = Reranker.load(options)
        self._instruction = instruction

    @property
    def facts(self) -> Facts:
        """Of the model."""
        return Facts(self.reranker.name, self.reranker.backend.name, self.reranker.fingerprint)

    def __call__(self, rows: Sequence[Row]) -> Scores:
        """Scores in the order of the rows."""
        return self.score([(row.query, row.text) for row in rows])

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """Scores of (query, text) pairs, in their order."""
        margins = self.reranker.score(pairs, instruction=self._instruction)
        return Scores(margins, self.reranker.probability(margins))
