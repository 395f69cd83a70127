"""What OpenVINO and ONNX Runtime share: one exported graph that extends prefixes and scores documents.

The graph takes tokens on top of given keys and values and gives every row's last state, and the keys and values of the
first row's tokens, as many as are wanted: called with one row it extends a prefix, called with many it scores documents
that share one. The weights are in memory once. The two label rows stand beside the graph and are multiplied here, in
float32.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank.scoring import Capabilities
from prorank.types import EncodedGroup

__all__ = ["HEAD", "INPUTS", "OUTPUTS", "GraphBackend"]

INPUTS = ("ids", "last", "past", "hidden", "kept")
OUTPUTS = ("states", "present")
HEAD = "labels.safetensors"

Array = npt.NDArray[np.float32]
_CACHED_PREFIXES = 4
"""An instruction's and three queries' keys and values: 4 MB a query of SmolLM2-135M."""


class GraphBackend(ABC):
    """Scores with an exported graph; a subclass runs it. Several threads may ask at a time.

    Args:
        folder: holds ``labels.safetensors``: ``rows (2, hidden)`` and ``bias (2,)``, float32.
        inputs: names of the graph's inputs.
        past_shape: of its ``past``, with 1 for the dimension of positions, or 0 where it takes an empty one.
        kind: numpy's type of keys and values.
        round_to: widths of batches are rounded up to multiples of this, so that few different ones come up.

    Raises:
        ValueError: an older version wrote the folder: it has no label rows, or the graph lacks an input.
    """

    name: str
    capabilities: Capabilities
    max_positions: int | None = None

    def __init__(
        self, folder: Path, inputs: Collection[str], past_shape: Sequence[int], *, round_to: int = 1,
        kind: type = np.float32,
    ) -> None:  # fmt: skip
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        lacks = [HEAD] if not (folder / HEAD).is_file() else [name for name in INPUTS if name not in inputs]
        if lacks:
            raise ValueError(f"{folder}: {lacks[0]} is missing: an older version wrote it; run `prorank export` again")
        try:
            head = load_file(folder / HEAD)
            self._rows, self._bias = head["rows"], head["bias"]
        except (SafetensorError, KeyError, OSError) as error:
            raise ValueError(f"{folder / HEAD}: not a readable safetensors file: {error!r}") from error
        self.prefix_hits = 0
        self._empty: npt.NDArray[Any] = np.zeros(tuple(past_shape), dtype=kind)
        self._round = round_to
        self._prefixes: OrderedDict[tuple[int, ...], Array] = OrderedDict()
        self._prefix_lock = threading.Lock()

    @abstractmethod
    def infer(self, inputs: dict[str, npt.NDArray[np.int64] | Array], states: bool) -> tuple[Array, Array | None]:
        """Run the graph.

        Args:
            inputs: ``ids (n, width)``, ``last (n,)``, ``past (2 layers, 1, heads, length, size)``, ``hidden (1,)``,
                ``kept (1,)``.
            states: whether the keys and values are wanted.

        Returns:
            ``states (n, hidden)`` and ``present (2 layers, 1, heads, kept, size)``, or None for the latter.
        """

    def label_logits(self, group: EncodedGroup) -> Array:
        """See :class:`prorank.scoring.Backend`."""
        if not group.own_ids:
            return np.zeros((0, 2), dtype=np.float32)
        tokens, lengths = self.padded(group)
        inputs = self._inputs(tokens, lengths - 1, self.prefix(group), 1)  # no graph gives an empty output
        return self.logits_of(self.infer(inputs, False)[0])

    def padded(self, group: EncodedGroup) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Own ids ``(n, width)``, zeros on the right, and how many of each row are real ``(n,)``."""
        lengths = np.array([len(ids) for ids in group.own_ids], dtype=np.int64)
        width = -(-int(lengths.max()) // self._round) * self._round
        tokens = np.zeros((len(lengths), width), dtype=np.int64)
        for row, ids in enumerate(group.own_ids):
            tokens[row, : lengths[row]] = ids
        return tokens, lengths

    def prefix(self, group: EncodedGroup) -> Array | None:
        """Keys and values of what the group's rows share; None where that is nothing."""
        if not group.prefix_ids:
            return None
        with self._prefix_lock:  # who comes second finds it
            return self._prefix(group)

    def logits_of(self, states: Array) -> Array:
        """Label logits ``(n, 2)`` of last states ``(n, hidden)``; a row's sums do not depend on how many there are."""
        logits: Array = (states[:, None] * self._rows).sum(-1) + self._bias
        return logits

    def _prefix(self, group: EncodedGroup) -> Array:
        """Keys and values of the group's prefix, from the cache, or built on the instruction's."""
        whole = tuple(group.prefix_ids)
        head = whole[: group.instruction_length]
        found = self._prefixes.get(whole)
        if found is not None:
            self.prefix_hits += 1
            self._prefixes.move_to_end(whole)
            return found
        past = None
        if head and head != whole:
            past = self._prefixes.get(head)
            if past is None:
                past = self._remember(head, self._extend(head, None))
        return self._remember(whole, self._extend(whole[len(head) :] if past is not None else whole, past))

    def _extend(self, ids: Sequence[int], past: Array | None) -> Array:
        tokens = np.array([ids], dtype=np.int64)
        present = self.infer(self._inputs(tokens, np.array([len(ids) - 1]), past, len(ids)), True)[1]
        assert present is not None
        return present if past is None else np.concatenate([past, present], axis=3)

    def _inputs(
        self, tokens: npt.NDArray[np.int64], last: npt.NDArray[np.int64], past: Array | None, kept: int
    ) -> dict[str, npt.NDArray[np.int64] | Array]:
        # No graph takes an empty past: one position of zeros stands for it, and nobody sees it.
        hidden = np.array([0 if past is not None else 1], dtype=np.int64)
        past = self._empty if past is None else past
        return {"ids": tokens, "last": last, "past": past, "hidden": hidden, "kept": np.array([kept], dtype=np.int64)}

    def _remember(self, ids: tuple[int, ...], states: Array) -> Array:
        self._prefixes[ids] = states
        while len(self._prefixes) > _CACHED_PREFIXES:
            self._prefixes.popitem(last=False)
        return states
