"""A backend without a model, for tests: the logits are a hash of the ids, so they are stable and all different."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from prorank.scoring import Capabilities
from prorank.types import EncodedGroup

__all__ = ["FakeBackend"]


class FakeBackend:
    """Scores a prompt by the CRC of its ids; records the batches it was given.

    Args:
        fail_with: raised by every call, to test what a broken model does to a caller.
    """

    name = "fake"
    capabilities = Capabilities()
    prefix_hits = 0

    def __init__(self, fail_with: Exception | None = None) -> None:
        self.fail_with = fail_with
        self.batches: list[EncodedGroup] = []

    def label_logits(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        if self.fail_with is not None:
            raise self.fail_with
        self.batches.append(group)
        logits = np.zeros((len(group.own_ids), 2), dtype=np.float32)
        for row, own in enumerate(group.own_ids):
            ids = np.asarray([*group.prefix_ids, *own], dtype=np.int64)
            logits[row, 1] = zlib.crc32(ids.tobytes()) / 2**32 * 10 - 5
        return logits
