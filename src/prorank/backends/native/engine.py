"""Our own engine: int8 on x86 (since AVX2) and 64-bit ARM. ``native.c`` comes compiled with a wheel, or is compiled
when it is first used.

As many batches are computed at a time as there are cores; where there are fewer, several cores share one. There is no
padding, nothing is copied for the heads that share keys, and a score is the same to the last bit in whatever batch and
on however many cores it is computed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank.backends.cores import available_cores
from prorank.backends.graph import INPUTS, Array, GraphBackend
from prorank.backends.native.compiler import opened
from prorank.backends.native.levels import VARIABLE, Level, chosen_level, level_flags, processor_features
from prorank.backends.native.team import compute_together
from prorank.backends.native.weights import FORMAT, GROUP, PARTS, WEIGHTS, Batch, Weights
from prorank.scoring import Capabilities
from prorank.types import EncodedGroup

__all__ = ["FORMAT", "GROUP", "PARTS", "WEIGHTS", "NativeBackend", "check_engine"]

_BATCH_TOKENS = 256


class NativeBackend(GraphBackend):
    """Scores with ``native.c``.

    Args:
        folder: holds ``native.safetensors`` and ``labels.safetensors``.
        label_ids: (irrelevant, relevant) token ids, whose rows are in the folder, in this order.
        threads: cores. None: all.

    Raises:
        ValueError: the weights are missing or damaged.
        ImportError: this processor has none of the instruction sets that we use, or there is no C compiler.
    """

    def __init__(self, folder: Path, label_ids: tuple[int, int], *, threads: int | None = None) -> None:
        path = folder / WEIGHTS
        if not path.is_file():
            raise ValueError(f"{folder}: {WEIGHTS} is missing; write it with `prorank export --to native-int8`")
        features = processor_features()
        self.level = chosen_level(features)
        """The instruction set that it was compiled for."""
        self._library, _ = _library(self.level, features)
        self._weights = Weights(path, self._library)
        model = self._model = self._weights.model
        super().__init__(folder, INPUTS, [2 * model.layers, 1, model.key_heads, 0, model.size], kind=np.uint16)
        if self._rows.shape != (2, model.hidden):
            raise ValueError(f"{folder}: label rows of shape {self._rows.shape} for states of {model.hidden}: damaged")
        self.label_ids = label_ids
        self.layers, self.hidden = int(model.layers), int(model.hidden)
        self.name = "native-cpu-int8"
        self.capabilities = Capabilities(
            passes=threads or available_cores(), batch_tokens=_BATCH_TOKENS, shares_prefixes=True, layers=self.layers,
            level=self.level.name, splits=True,
        )  # fmt: skip
        self._spaces: SimpleQueue[npt.NDArray[np.uint8]] = SimpleQueue()  # a core each
        for _ in range(self.capabilities.passes):
            self._spaces.put(np.zeros(0, dtype=np.uint8))

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], states: bool) -> tuple[Array, npt.NDArray[Any] | None]:
        """See :class:`GraphBackend`; keys and values are bfloat16, as uint16. A prefix, which all wait for, takes every
        core that is free."""
        model, lengths = self._model, inputs["last"] + 1
        last = np.empty((len(lengths), model.hidden), dtype=np.float32)
        present = None
        if states:
            present = np.empty((2 * model.layers, 1, model.key_heads, int(lengths[0]), model.size), dtype=np.uint16)
        cores = self.capabilities.passes if states else 1
        self._run(
            lengths, inputs["past"], (0, model.layers), ids=inputs["ids"], present=present, states=last, cores=cores
        )
        return last, present

    def label_logits_on(self, cores: int, group: EncodedGroup) -> Array:
        """:meth:`label_logits`, on so many cores where they are free: the same numbers."""
        ids, lengths = self.padded(group)
        states = self.run_layers(lengths, self.prefix(group), (0, self.layers), ids=ids, cores=cores)
        return self.logits_of(states)

    def run_layers(
        self,
        lengths: npt.NDArray[np.int64],
        past: npt.NDArray[Any] | None,
        layers: tuple[int, int],
        *,
        ids: npt.NDArray[np.int64] | None = None,
        stream: Array | None = None,
        cores: int = 1,
    ) -> Array:
        """Some layers, from one to before another.

        Args:
            lengths: tokens of each row, ``(n,)``.
            past: of :meth:`GraphBackend.prefix`.
            ids: ``(n, width)``, for layers from the first.
            stream: states before the first of these layers, for others: ``(tokens, hidden)``, row after row; those
                after the last of them take their place.
            cores: that share the work, where they are free.

        Returns:
            the states after them, ``(tokens, hidden)``; after the last layer those of each row's last token, normed,
            ``(n, hidden)``.
        """
        model, past = self._model, self._empty if past is None else past
        if layers[1] == model.layers:
            last = np.empty((len(lengths), model.hidden), dtype=np.float32)
            self._run(lengths, past, layers, ids=ids, stream=stream, states=last, cores=cores)
            return last
        if stream is None:
            stream = np.empty((int(lengths.sum()), model.hidden), dtype=np.float32)
        self._run(lengths, past, layers, ids=ids, stream=stream, cores=cores)
        return stream

    def _run(
        self, lengths: npt.NDArray[np.int64], past: npt.NDArray[Any], layers: tuple[int, int], *,
        ids: npt.NDArray[np.int64] | None = None, present: npt.NDArray[Any] | None = None, stream: Array | None = None,
        states: Array | None = None, cores: int = 1,
    ) -> None:  # fmt: skip
        if lengths.min() < 1:
            raise ValueError("own_ids: a row is empty: there is no last token to read")
        if ids is not None and (ids.min() < 0 or ids.max() >= self._weights.vocabulary):
            raise ValueError(
                f"token ids must lie in 0 to {self._weights.vocabulary - 1}, got {ids.min()} to {ids.max()}"
            )
        lengths, before = np.ascontiguousarray(lengths), past.shape[3]
        batch = Batch(
            _address(ids), _address(lengths), len(lengths), 0 if ids is None else ids.shape[1],
            _address(past) if before else None, before, _address(present), *layers, _address(stream), _address(states),
        )  # fmt: skip
        spaces = self._taken(cores)
        try:
            compute_together(self._library, self._model, batch, spaces)
        finally:
            for space in spaces:
                self._spaces.put(space)

    def _taken(self, cores: int) -> list[npt.NDArray[np.uint8]]:
        """The memory of one core, for which it waits, and of up to ``cores`` where they are free."""
        spaces = [self._spaces.get()]
        with contextlib.suppress(Empty):
            while len(spaces) < cores:
                spaces.append(self._spaces.get_nowait())
        return spaces


def check_engine() -> tuple[str, str]:
    """The engine's level here, and where its library comes from.

    Raises:
        ImportError: it does not; says why.
        ValueError: the environment variable asks for what this processor lacks.
        OSError: the cache, where it would be compiled, cannot be written to.
    """
    features = processor_features()
    level = chosen_level(features)
    return level.name, _library(level, features)[1]


def _address(array: npt.NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


@functools.cache
def _library(level: Level, features: frozenset[str]) -> tuple[ctypes.CDLL, str]:
    """``native.c`` as a library of one level, for a processor with these features, and where it comes from."""
    library, origin = opened(Path(__file__).with_name("native.c"), level_flags(level, features))
    library.prorank_space.restype = ctypes.c_size_t
    library.prorank_pack.restype = library.prorank_run.restype = None
    if library.prorank_begin():
        raise ImportError(f"native: the system does not let programs use {level.name}; {VARIABLE} takes a lower level")
    return library, origin
