"""The wire of vLLM's ``/classify`` and ``/pooling``: token ids out, one score a prompt back.

They serve what ``prorank export --to seq-cls`` writes. By itself the server answers sigmoid(margin);
``use_activation: false`` asks for the margin. A server that does not know the field answers probabilities all the same,
so the first prompt is asked for both ways, and two equal probabilities are an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prorank.backends.remote_wire import Pair, RemoteError

__all__ = ["POOLING_PATHS", "PoolingWire"]

POOLING_PATHS = {"classify": ("probs", {}), "pooling": ("data", {"task": "classify"})}
"""Last part of the path -> the field of an entry that holds the score, and what else is asked."""


class PoolingWire:
    """Margins from a sequence-classification model with one label.

    Args:
        shown: the server's address for messages.
        endpoint: a key of :data:`POOLING_PATHS`.
        options: further fields of the request.
    """

    def __init__(self, shown: str, model: str, endpoint: str, options: Mapping[str, Any]) -> None:
        self._shown = shown
        self._field, more = POOLING_PATHS[endpoint]
        self._fixed = {"model": model, "use_activation": False, **more, **options}

    def body(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Always a list of prompts, which both endpoints take."""
        return {**self._fixed, "input": [list(prompt) for prompt in prompts]}

    def pairs(self, answer: Mapping[str, Any], count: int, row: int) -> list[Pair] | None:
        """(0, margin) each: the difference is all that a score layer holds."""
        entries = answer.get("data")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return None
        by_index = {entry.get("index"): entry.get(self._field) for entry in entries}
        if len(entries) != count or set(by_index) != set(range(count)):
            return None
        return [(0.0, self._score(by_index[i], row + i)) for i in range(count)]

    def probe(self, prompt: Sequence[int]) -> dict[str, Any] | None:
        """The same prompt with the activation."""
        return {**self.body([prompt]), "use_activation": True}

    def check(self, pair: Pair, probed: Mapping[str, Any]) -> None:
        """See :class:`prorank.backends.remote_wire.Wire`."""
        found = self.pairs(probed, 1, 0)
        if found is not None and 0 <= pair[1] <= 1 and math.isclose(pair[1], found[0][1], abs_tol=1e-4):
            raise RemoteError(
                f"{self._shown} answers {pair[1]:.4f} with and without use_activation: probabilities, not margins; "
                "the server does not know the field"
            )

    def _score(self, values: Any, row: int) -> float:
        if not isinstance(values, list) or len(values) != 1:
            raise RemoteError(
                f"{self._shown}: row {row}: expected one score in {self._field!r}; serve the folder of "
                "prorank export --to seq-cls"
            )
        score = values[0]
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise RemoteError(f"{self._shown}: row {row}: {score!r} is no score")
        return float(score)
