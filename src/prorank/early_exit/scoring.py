"""Scoring one query's documents, most of which stop at an early layer: all documents run to the first exit, those whose
estimate is close enough to the k-th best one run on to the next, and what is left has an exact margin in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from prorank.scoring import (
    DEFAULT_BATCH_TOKENS,
    Batch,
    Margins,
    NonFiniteMarginError,
    cut_rows,
    fair_batch,
    in_passes,
    margins_of,
    plan_batches,
)
from prorank.types import EncodedGroup

__all__ = ["EarlyExit", "kth_best", "score_cascade"]

_HELD_TOKENS = 131_072


class EarlyExit(Protocol):
    """A backend that can stop at its exits and say what it expects."""

    passes: int
    """Batches at a time, as of the backend."""

    def begin(self, group: EncodedGroup) -> tuple[Any, npt.NDArray[np.float32]]:
        """The layers up to the first exit: a state to go on from, and an estimate of every row's margin ``(n,)``."""
        ...

    def go_on(self, pieces: Sequence[tuple[Any, Sequence[int]]]) -> tuple[Any, npt.NDArray[np.float32]]:
        """The layers up to the next exit, for some rows of several states, which become one batch.

        Returns:
            the new state and estimates ``(n,)``; after the last exit, label logits ``(n, 2)`` instead.
        """
        ...


class _Waiting(NamedTuple):
    """A batch at an exit."""

    state: Any
    rows: list[int]
    """Its rows' places in the group."""


def score_cascade(
    early: EarlyExit,
    group: EncodedGroup,
    *,
    top_k: int,
    tolerances: Sequence[float],
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    held_tokens: int = _HELD_TOKENS,
    on_scored: Callable[[int], None] | None = None,
) -> tuple[Margins, npt.NDArray[np.bool_]]:
    """Margins of a group's rows, where only those that may be among the ``top_k`` go through all layers.

    A row goes on from an exit if its estimate there is at least the ``top_k``-th best one minus the exit's tolerance.
    The others get numbers below every finished margin: who came further is above, at one exit by the estimates.

    Args:
        tolerances: one for each exit.
        held_tokens: own tokens whose states are kept at the first exit; beyond that, what is held goes on by the
            estimates known so far, which lets more rows go on than needed and none too few.

    Returns:
        ``(n,)`` float32, and which of them are exact ``(n,)``.
    """
    passes, count = early.passes, len(group.own_ids)
    lengths = [len(ids) for ids in group.own_ids]
    copies: dict[int, list[int]] = {}
    estimates = np.full((len(tolerances), count), -np.inf, dtype=np.float32)
    margins, exact = np.zeros(count, dtype=np.float32), np.zeros(count, dtype=bool)

    def note(exit_number: int, rows: Sequence[int], found: npt.NDArray[np.float32]) -> None:
        if not np.isfinite(found).all():
            raise NonFiniteMarginError("an estimate is not finite: the model's weights hold NaN or infinity")
        for row, estimate in zip(rows, found, strict=True):
            estimates[exit_number, [row, *copies[row]]] = estimate

    def finish(held: list[_Waiting]) -> None:
        for number, tolerance in enumerate(tolerances):
            least = kth_best(estimates[number], top_k) - tolerance
            kept = [(w, i) for w in held for i, row in enumerate(w.rows) if estimates[number, row] >= least]
            held = []
            left = sum(lengths[w.rows[i]] for w, i in kept)
            chunks = list(_chunks(kept, lengths, fair_batch(batch_tokens, left, passes)))
            pieces = [[(w.state, places) for w, places in chunk] for chunk in chunks]
            answers = in_passes(early.go_on, pieces, passes)
            for chunk, (state, found) in zip(chunks, answers, strict=True):
                rows = [w.rows[i] for w, places in chunk for i in places]
                if number + 1 < len(tolerances):
                    note(number + 1, rows, found)
                    held.append(_Waiting(state, rows))
                    continue
                for row, margin in zip(rows, margins_of(found), strict=True):
                    margins[[row, *copies[row]]], exact[[row, *copies[row]]] = margin, True

    batches = plan_batches([group], fair_batch(batch_tokens, sum(lengths), passes))
    for portion in _portions(batches, held_tokens):
        held: list[_Waiting] = []
        answers = in_passes(early.begin, [batch.group for batch in portion], passes)
        for batch, (state, found) in zip(portion, answers, strict=True):
            rows = [row for _, row in batch.rows]
            copies |= {row: [same for _, same in places] for row, places in zip(rows, batch.copies, strict=True)}
            note(0, rows, found)
            held.append(_Waiting(state, rows))
            if on_scored is not None:
                on_scored(sum(1 + len(copies[row]) for row in rows))
        finish(held)
    _place_below(margins, exact, estimates)
    return margins, exact


def _portions(batches: Iterator[Batch], held_tokens: int) -> Iterator[list[Batch]]:
    """Batches whose states are kept together: as many as reach that many own tokens."""
    portion: list[Batch] = []
    tokens = 0
    for batch in batches:
        portion.append(batch)
        tokens += sum(map(len, batch.group.own_ids))
        if tokens > held_tokens:
            yield portion
            portion, tokens = [], 0
    if portion:
        yield portion


def kth_best(estimates: npt.NDArray[np.float32], k: int) -> float:
    """The k-th largest of the known (finite) estimates; -inf where fewer than k are known."""
    known = estimates[np.isfinite(estimates)]
    return float(np.partition(known, -k)[-k]) if len(known) >= k else -np.inf


def _chunks(
    kept: Sequence[tuple[_Waiting, int]], lengths: Sequence[int], batch_tokens: int
) -> Iterator[list[tuple[_Waiting, list[int]]]]:
    """Rows that go on, as batches of similar lengths: each a list of (where they wait, places there)."""
    ordered = sorted(kept, key=lambda one: lengths[one[0].rows[one[1]]], reverse=True)
    for part in cut_rows([lengths[waiting.rows[i]] for waiting, i in ordered], batch_tokens):
        places: dict[int, tuple[_Waiting, list[int]]] = {}
        for waiting, i in ordered[part]:
            places.setdefault(id(waiting), (waiting, []))[1].append(i)
        yield list(places.values())


def _place_below(margins: Margins, exact: npt.NDArray[np.bool_], estimates: npt.NDArray[np.float32]) -> None:
    """Give every row that has no margin a number below all that came further."""
    floor = margins[exact].min() if exact.any() else 0.0
    left = ~exact
    for found in estimates[::-1]:
        stopped = left & np.isfinite(found)
        if stopped.any():
            margins[stopped] = floor - 1e-3 - (found[stopped].max() - found[stopped])
            floor = margins[stopped].min()
            left &= ~stopped
