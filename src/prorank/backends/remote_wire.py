"""What a server is asked and how its answer is read: the part of the remote backend that differs by endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Pair", "RemoteError", "Wire"]

Pair = tuple[float, float]


class RemoteError(RuntimeError):
    """The server refused, could not be reached, or answered something from which no score can be read."""


class Wire(Protocol):
    """One endpoint's format; it sends nothing itself."""

    def body(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """The request for some prompts, token ids each."""
        ...

    def pairs(self, answer: Mapping[str, Any], count: int, row: int) -> list[Pair] | None:
        """Label logits of ``count`` prompts, or None where the answer does not hold one for each.

        Args:
            row: the first one's row, for messages.

        Raises:
            RemoteError: a score cannot be read; the message names the row.
        """
        ...

    def probe(self, prompt: Sequence[int]) -> dict[str, Any] | None:
        """A request whose answer :meth:`check` wants to see before anything is believed; None: it wants none."""
        ...

    def check(self, pair: Pair, probed: Mapping[str, Any]) -> None:
        """Compare a prompt's pair with the answer to :meth:`probe`.

        Raises:
            RemoteError: what the server answers is no margin.
        """
        ...
