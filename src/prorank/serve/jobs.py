"""What waits in a batcher's queue: requests as parts, and the slices that scoring steps take from them."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from prorank.scoring import Margins

if TYPE_CHECKING:
    from prorank.prompt.encoder import Encoded

__all__ = ["FinishedJob", "Job", "Part", "Slice", "tokens_of"]


@dataclass(frozen=True)
class FinishedJob:
    """One request's margins."""

    margins: list[Margins]
    """Per :class:`Encoded` given, a margin for each of its documents, in their order."""
    queue_seconds: float
    """From submission to the start of the first step that held any of its documents."""
    score_seconds: float
    """Of all steps that held any of its documents."""
    steps: int


def tokens_of(encoded: Encoded) -> int:
    """Tokens to be computed: the shared prefix once, and every row's own."""
    return len(encoded.group.prefix_ids) + sum(map(len, encoded.group.own_ids))


class Part:
    """The documents of one Encoded that are not yet scored, longest first, as the scoring path itself sorts."""

    def __init__(self, encoded: Encoded) -> None:
        self.encoded = encoded
        self.margins = np.zeros(encoded.document_count, dtype=np.float32)
        rows: list[list[int]] = [[] for _ in range(encoded.document_count)]
        for row, document in enumerate(encoded.row_document):
            rows[document].append(row)
        self._rows = rows
        own = encoded.group.own_ids
        self._width = [max((len(own[row]) for row in of), default=0) for of in rows]
        self._order = sorted(range(len(rows)), key=lambda document: -self._width[document])
        self._next = 0
        tail = np.cumsum([sum(len(own[row]) for row in rows[document]) for document in self._order][::-1])
        self._tokens_left = [*(int(n) for n in tail[::-1]), 0]

    @property
    def tokens_left(self) -> int:
        """Tokens not yet taken; the prefix counts as long as any document is left."""
        left = self._tokens_left[self._next]
        return left + len(self.encoded.group.prefix_ids) if left else 0

    def take(self, budget: int) -> tuple[Encoded, list[int], int] | None:
        """(slice, its documents, padded tokens): as many as fit into ``budget``, at least one; None when empty."""
        if self._next >= len(self._order):
            return None
        width = max(self._width[self._order[self._next]], 1)
        end, row_count = self._next, 0
        while end < len(self._order):
            more = len(self._rows[self._order[end]])
            if row_count and (row_count + more) * width > budget:
                break
            row_count += more
            end += 1
        documents = self._order[self._next : end]
        self._next = end
        rows = [row for document in documents for row in self._rows[document]]
        own = self.encoded.group.own_ids
        piece = self.encoded._replace(
            group=self.encoded.group._replace(own_ids=[own[row] for row in rows]),
            row_document=tuple(i for i, document in enumerate(documents) for _ in self._rows[document]),
            truncated=0,
            document_count=len(documents),
        )
        return piece, documents, row_count * width


@dataclass(eq=False)
class Job:
    """One request in the queue."""

    parts: list[Part]
    tokens: int
    future: Future[FinishedJob] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    served: int = 0
    """Padded tokens that steps have taken so far: what fairness goes by."""
    score_seconds: float = 0.0
    steps: int = 0
    unscored: int = 0
    tokens_left: int = 0
    """Tokens that no step has taken yet."""


@dataclass
class Slice:
    """What one step takes of one part."""

    job: Job
    part: Part
    encoded: Encoded
    documents: list[int]
    """Places in the part's documents, in the order of the slice."""
