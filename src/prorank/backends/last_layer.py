"""The last layer's feed-forward block for the positions that are read, and for no others.

A score needs the last layer's output at each row's last token only; its attention needs keys and values of all, but
what its feed-forward block adds to the other positions is thrown away. In SmolLM2-135M that is 2.5 % of the model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["can_feed_forward_apart", "feed_forward_apart", "reading"]

_BLOCK = ("gate_proj", "up_proj", "down_proj")


class _Read(threading.local):
    """The pass in progress."""

    at: tuple[torch.Tensor, torch.Tensor] | None = None
    """Positions that are read, ``(rows, columns)``; None: all."""
    states: torch.Tensor | None = None
    """What the block would have been given, ``(n, width, hidden)``."""


_read = _Read()


@contextmanager
def reading(columns: torch.Tensor | None) -> Iterator[None]:
    """Within, a model prepared by :func:`feed_forward_apart` ends in right states only at some positions.

    Args:
        columns: ``(n,)``, the one position of each row that will be read; None: no position will be.
    """
    columns = torch.zeros(0, dtype=torch.long) if columns is None else columns
    _read.at = torch.arange(len(columns), device=columns.device), columns
    try:
        yield
    finally:
        _read.at = _read.states = None


def can_feed_forward_apart(decoder: Any) -> bool:
    """Whether the last layer has the usual gated block, which sees each position by itself."""
    layers = getattr(decoder, "layers", None)
    block = getattr(layers[-1], "mlp", None) if layers else None
    return block is not None and all(isinstance(getattr(block, name, None), torch.nn.Linear) for name in _BLOCK)


def feed_forward_apart(decoder: Any) -> None:
    """Make the last layer's feed-forward block heed :func:`reading`; outside of it the model is as before."""
    block = decoder.layers[-1].mlp
    if _gather not in block._forward_pre_hooks.values():
        block.register_forward_pre_hook(_gather)
        block.register_forward_hook(_scatter)


def _gather(_block: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
    if _read.at is None:
        return None
    _read.states = inputs[0]
    return (inputs[0][_read.at][:, None],)


def _scatter(_block: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    if _read.at is None or _read.states is None:
        return output
    whole = torch.zeros_like(_read.states)
    whole[_read.at] = output[:, 0]
    _read.states = None
    return whole
