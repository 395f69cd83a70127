"""What a reranker answers: the results in order, and how many were left out by thresholds.

It knows margins and probabilities, no model and no server: the library, the client and the server decide here alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import count, islice
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.scoring import rank_order
from prorank.types import Document, DocumentLike, RankResult, as_document, as_documents

__all__ = ["NO_THRESHOLDS", "Collected", "Ranking", "Thresholds", "best_places", "check_count", "document_blocks"]


class Ranking(list[RankResult]):
    """Results from most to least relevant: a list that also says how many documents it leaves out."""

    left_out: int
    """Documents below ``min_score`` or ``min_margin``; what ``top_k`` cuts off does not count."""

    def __init__(self, results: Iterable[RankResult] = (), *, left_out: int = 0) -> None:
        super().__init__(results)
        self.left_out = left_out

    def to_dicts(self) -> list[dict[str, Any]]:
        """A row a result: ``rank`` (from 1) and the fields of :class:`RankResult`, but for those that are None."""
        return [{"rank": rank, **_fields(result)} for rank, result in enumerate(self, 1)]

    def to_dataframe(self) -> Any:
        """A pandas frame of :meth:`to_dicts`; ``text``, ``chunk`` and ``sentences`` where they are asked for.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = require("pandas", extra="pandas")
        rows = self.to_dicts()
        more = [name for name in ("text", "chunk", "sentences") if any(name in row for row in rows)]
        return pandas.DataFrame(rows, columns=["rank", "index", "doc_id", "margin", "probability", *more])

    def to_trec(self, query_id: str, tag: str = "prorank") -> str:
        """Lines of a TREC run (``query_id Q0 doc_id rank margin tag``), each with its line break.

        Raises:
            ValueError: an id is empty or holds white space, or a document comes twice: no reader would take it.
        """
        from prorank.data.trec import run_lines

        return "".join(f"{line}\n" for line in run_lines(query_id, ((r.doc_id, r.margin) for r in self), tag))


def _fields(result: RankResult) -> dict[str, Any]:
    fields = {name: value for name, value in result._asdict().items() if value is not None}
    if result.chunk is not None:
        fields["chunk"] = result.chunk._asdict()
    if result.sentences is not None:
        fields["sentences"] = [sentence._asdict() for sentence in result.sentences]
    return fields


class Collected:
    """The best results of several rankings, no more of them in memory than are asked for.

    Args:
        top_k: how many; None: all.
        explained: of so many the sentences stay; None: of all that have some.
    """

    def __init__(self, top_k: int | None, explained: int | None = None) -> None:
        self._top_k, self._explained = top_k, explained
        self._results: list[RankResult] = []
        self._left_out = 0

    def add(self, ranking: Ranking, offset: int = 0) -> None:
        """Take in a ranking whose document 0 is document ``offset`` of all."""
        moved = [result._replace(index=result.index + offset) for result in ranking] if offset else ranking
        both = sorted([*self._results, *moved], key=lambda result: (-result.margin, result.index))
        self._results = both[: self._top_k]
        self._left_out += ranking.left_out

    def places(self, count: int) -> list[int]:
        """Indices of the ``count`` best so far."""
        return [result.index for result in self._results[:count]]

    def ranking(self) -> Ranking:
        """The best so far."""
        ranking = Ranking(self._results, left_out=self._left_out)
        if self._explained is not None:  # a later block's may have come before those of an earlier one
            ranking[self._explained :] = [one._replace(sentences=None) for one in ranking[self._explained :]]
        return ranking


def document_blocks(
    documents: Iterable[DocumentLike], top_k: int | None, size: int
) -> Iterator[tuple[int, list[Document]]]:
    """(place of the first, documents) blocks: an iterator in blocks of ``size`` where only the ``top_k`` are kept.

    Anything else is one block, and so is an iterator whose every document is asked for.
    """
    if top_k is None or not isinstance(documents, Iterator):
        yield 0, as_documents(documents)
        return
    for offset in count(0, size):
        block = [as_document(document, offset + i) for i, document in enumerate(islice(documents, size))]
        if not block:
            return
        yield offset, block


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


def check_count(name: str, value: int | None) -> None:
    """Raises ValueError where a count is given and below 1."""
    if value is not None and value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


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
