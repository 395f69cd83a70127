"""Our own engine in parts, so that some documents may stop between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.backends.native.engine import NativeBackend
from prorank.early_exit.readouts import Cascade
from prorank.types import EncodedGroup

__all__ = ["NativeEarlyExit", "features", "features_at"]

Array = npt.NDArray[np.float32]


class _HalfWay(NamedTuple):
    """A batch at an exit."""

    stream: Array
    """``(tokens, hidden)``: states after the exit's layer, row after row."""
    lengths: npt.NDArray[np.int64]
    past: npt.NDArray[Any] | None
    part: int
    """How many parts have run."""


class NativeEarlyExit:
    """:class:`prorank.early_exit.scoring.EarlyExit` on a native backend.

    Raises:
        ValueError: the read-outs are of another model.
    """

    def __init__(self, backend: NativeBackend, cascade: Cascade) -> None:
        if cascade.weights.shape[1] != 2 * backend.hidden or cascade.layers[-1] >= backend.layers:
            raise ValueError(
                f"cascade: the read-outs read {cascade.weights.shape[1]} numbers after layer {cascade.layers[-1]}, the "
                f"model has {backend.layers} layers and states of {backend.hidden}"
            )
        self.passes = backend.capabilities.passes
        self._backend, self._weights = backend, cascade.weights
        self._parts = list(itertools.pairwise([0, *cascade.layers, backend.layers]))

    def begin(self, group: EncodedGroup) -> tuple[_HalfWay, Array]:
        """The batch at the first exit, and an estimate a row."""
        ids, lengths = self._backend.padded(group)
        past = self._backend.prefix(group)
        half = _HalfWay(self._backend.run_layers(lengths, past, self._parts[0], ids=ids), lengths, past, 1)
        return half, self._estimates(half)

    def go_on(self, pieces: Sequence[tuple[_HalfWay, Sequence[int]]]) -> tuple[_HalfWay | None, Array]:
        """Some rows at the next exit with an estimate each; after the last exit, their label logits ``(n, 2)``."""
        part, past = pieces[0][0].part, pieces[0][0].past
        lengths = np.concatenate([half.lengths[list(rows)] for half, rows in pieces])
        stream = np.concatenate([x for half, rows in pieces for x in _rows(half, rows)])
        after = self._backend.run_layers(lengths, past, self._parts[part], stream=stream)
        if part + 1 == len(self._parts):
            return None, self._backend.logits_of(after)
        half = _HalfWay(after, lengths, past, part + 1)
        return half, self._estimates(half)

    def _estimates(self, half: _HalfWay) -> Array:
        found: Array = features(half.stream, half.lengths) @ self._weights[half.part - 1]
        return found


def features(stream: Array, lengths: npt.NDArray[np.int64]) -> Array:
    """What a read-out reads, ``(n, 2 * hidden)``; see :func:`prorank.early_exit.torch.features`.

    Args:
        stream: states ``(tokens, hidden)``, row after row.
        lengths: tokens of each row.
    """
    states = stream / np.sqrt(np.square(stream).mean(1, keepdims=True)).clip(min=1e-6)
    ends = np.cumsum(lengths)
    means = np.add.reduceat(states, ends - lengths) / lengths[:, None]
    return np.concatenate([states[ends - 1], means.astype(np.float32)], axis=1)


def features_at(backend: NativeBackend, group: EncodedGroup, layers: Sequence[int]) -> tuple[dict[int, Array], Array]:
    """One batch's :func:`features` after each of some ascending layers, and its label logits ``(n, 2)``."""
    ids, lengths = backend.padded(group)
    past, parts = backend.prefix(group), itertools.pairwise([0, *layers, backend.layers])
    stream = backend.run_layers(lengths, past, next(parts), ids=ids)
    read = {}
    for part in parts:
        read[part[0]] = features(stream, lengths)
        stream = backend.run_layers(lengths, past, part, stream=stream)
    return read, backend.logits_of(stream)


def _rows(half: _HalfWay, rows: Sequence[int]) -> list[Array]:
    ends = np.cumsum(half.lengths)
    return [half.stream[ends[row] - half.lengths[row] : ends[row]] for row in rows]
