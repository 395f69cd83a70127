"""Several processes behind one backend: each batch goes to a worker that is free.

Token ids travel there, label logits come back. It opens no model: :mod:`prorank.model.pooled` says what workers open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from prorank.scoring import Backend, Capabilities, cut_rows, fair_batch, in_passes
from prorank.types import EncodedGroup
from prorank.workers import Workers

__all__ = ["Answer", "PooledBackend", "answering"]

Answer = tuple[npt.NDArray[np.float32], int]
"""Label logits, and how many prefixes were found so far."""


class PooledBackend:
    """A :class:`prorank.scoring.Backend` over workers that answer as :func:`answering` does.

    Args:
        workers: alike but for their devices.
        name: the workers' backend's, because its scores are the same.
        capabilities: of one of them.
    """

    def __init__(self, workers: Workers, name: str, capabilities: Capabilities) -> None:
        self.workers = workers
        self.name = name
        self.capabilities = replace(
            capabilities, passes=len(workers), batch_tokens=capabilities.batch_tokens * capabilities.passes, layers=0,
            answers=False, holds_model=False, splits=False, workers=True,
        )  # fmt: skip
        self.prefix_hits = 0

    def label_logits(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """See :class:`prorank.scoring.Backend`."""
        logits, hits = self.workers(group)
        self.prefix_hits += hits
        return np.asarray(logits, dtype=np.float32)

    def close(self) -> None:
        """End the workers; they also end with this object."""
        self.workers.close()


def answering(backend: Backend) -> Callable[[EncodedGroup], Answer]:
    """What a worker does with a batch: cut for the passes of its own backend, computed, and joined again."""
    passes = backend.capabilities.passes

    def answer(group: EncodedGroup) -> Answer:
        before, lengths = backend.prefix_hits, [len(ids) for ids in group.own_ids]
        size = fair_batch(max(sum(lengths), 1), sum(lengths), passes)
        parts = [group._replace(own_ids=group.own_ids[rows]) for rows in cut_rows(lengths, size)] or [group]
        logits = list(in_passes(backend.label_logits, parts, passes))
        return np.concatenate(logits), backend.prefix_hits - before

    return answer
