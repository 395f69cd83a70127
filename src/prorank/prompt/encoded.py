"""One query's prompts as token ids, and which document each row belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.types import EncodedGroup

__all__ = ["Encoded", "best_margins"]


class Encoded(NamedTuple):
    """One query's documents as token ids."""

    group: EncodedGroup
    row_document: tuple[int, ...]
    """Per row of ``group`` the document it belongs to: several rows a document with ``max_window``."""
    truncated: int
    """How many documents were cut (with ``max_window``: had more than ``max_chunks``)."""
    document_count: int
    """How many documents were given."""

    def by_rows(self) -> Encoded:
        """The same rows, each as a document of its own: their margins come back one by one."""
        rows = len(self.row_document)
        return self._replace(row_document=tuple(range(rows)), document_count=rows)

    def best_rows(self, margins: Sequence[float]) -> list[int]:
        """Per document which of its rows, counted from 0, has the highest margin; the first of equals.

        Args:
            margins: one a row.
        """
        best: dict[int, tuple[float, int]] = {}
        seen: dict[int, int] = {}
        for document, margin in zip(self.row_document, margins, strict=True):
            place = seen[document] = seen.get(document, -1) + 1
            if document not in best or margin > best[document][0]:
                best[document] = (margin, place)
        return [best[document][1] for document in range(self.document_count)]


def best_margins(encoded: Encoded, by_row: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Per document the highest margin of its rows, ``(documents,)``."""
    best = np.full(encoded.document_count, -np.inf, dtype=np.float32)
    np.maximum.at(best, list(encoded.row_document), by_row)
    return best
