"""What a request asks for and what comes of it, whatever its wire format."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.ranking import NO_THRESHOLDS, Thresholds, best_places
from prorank.types import Chunk

__all__ = ["ScoredWork", "Work"]


class Work(NamedTuple):
    """What any format asks for."""

    lists: list[tuple[str, list[str]]]
    """(query, documents) lists; one, except for pairs with several queries."""
    model: str | None = None
    instruction: str | None = None
    raw_scores: bool = False
    cut: bool | None = True
    """Texts that are too long are cut (True), or the request is refused (False); None: as the server is set."""
    keep_end: bool = False
    """What is cut loses its beginning, not its end."""
    max_tokens_per_doc: int | None = None
    thresholds: Thresholds = NO_THRESHOLDS
    return_chunks: bool = False
    max_chunks_per_doc: int | None = None
    explain: int | None = None
    """So many of the first list's best documents come back with what their sentences weigh."""


@dataclass(frozen=True)
class ScoredWork:
    """Scores of one request, ready to be laid out."""

    request_id: str
    model: str
    tokens: int
    margins: Sequence[npt.NDArray[np.float32]]
    """Per list of the work, one per document."""
    scores: Sequence[npt.NDArray[np.float64]]
    """The same, as shown: probabilities, or margins with ``raw_scores``."""
    probabilities: Sequence[npt.NDArray[np.float64]]
    """What ``min_score`` is compared with."""
    thresholds: Thresholds = NO_THRESHOLDS
    chunk: Callable[[int], Chunk] | None = None
    """The part of a document of the first list that its score is about; None where it was not asked for."""
    sentences: Mapping[int, list[dict[str, Any]]] = field(default_factory=dict)
    """Place of a document of the first list -> its sentences with their weights."""
    created: int = field(default_factory=lambda: int(time.time()))

    def best(self, count: int | None) -> list[tuple[int, float, float, dict[str, Any]]]:
        """(index, score, margin, further fields) of the first list, best first; equals keep their order."""
        places, _ = best_places(self.margins[0], self.probabilities[0], count, self.thresholds)
        return [(i, float(self.scores[0][i]), float(self.margins[0][i]), self._more(i)) for i in places]

    def _more(self, index: int) -> dict[str, Any]:
        more: dict[str, Any] = {} if self.chunk is None else {"chunk": self.chunk(index)._asdict()}
        return more | ({"sentences": self.sentences[index]} if index in self.sentences else {})

    def kept(self, place: int) -> npt.NDArray[np.bool_]:
        """Which documents of a list reach the thresholds."""
        return self.thresholds.kept(self.margins[place], self.probabilities[place])

    @cached_property
    def left_out(self) -> int:
        """Documents of all lists below the thresholds."""
        return sum(int((~self.kept(place)).sum()) for place in range(len(self.margins)))

    @property
    def meta(self) -> dict[str, int]:
        """What the answer's metadata say about what is missing; nothing where no threshold was given."""
        return {"left_out": self.left_out} if self.thresholds.given else {}

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.tokens, "total_tokens": self.tokens}
