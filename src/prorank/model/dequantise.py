"""Blocks of a GGUF file's weights as float32: the kinds that 4- to 8-bit files of llama.cpp are made of.

A block holds 32 or 256 neighbouring weights of a row. What its bytes mean is fixed by llama.cpp (ggml-common.h); every
kind is tested against the package `gguf`, number by number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["KINDS", "Kind"]

Array = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint8]


class Kind(NamedTuple):
    """How weights are stored."""

    name: str
    weights: int
    """In a block."""
    bytes: int
    """Of a block."""
    read: Callable[[Blocks], Array]
    """Blocks ``(n, bytes)`` -> their weights ``(n, weights)``."""


def _half(blocks: Blocks, at: int) -> Array:
    """The float16 that begins at a byte of every block, ``(n, 1)``."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Blocks) -> npt.NDArray[np.uint8]:
    """Low halves of the bytes, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(packed: Blocks) -> npt.NDArray[np.uint8]:
    """32 bits of four bytes, each as 16 or 0."""
    return np.unpackbits(packed, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(blocks: Blocks) -> Array:
    return (_nibbles(blocks[:, 2:]).astype(np.float32) - 8) * _half(blocks, 0)


def _q4_1(blocks: Blocks) -> Array:
    return _nibbles(blocks[:, 4:]).astype(np.float32) * _half(blocks, 0) + _half(blocks, 2)


def _q5_0(blocks: Blocks) -> Array:
    whole = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return (whole.astype(np.float32) - 16) * _half(blocks, 0)


def _q5_1(blocks: Blocks) -> Array:
    whole = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return whole.astype(np.float32) * _half(blocks, 0) + _half(blocks, 2)


def _q8_0(blocks: Blocks) -> Array:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _half(blocks, 0)


def _steps_and_lows(packed: Blocks) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Eight steps and eight lowest values of six bits each, in 12 bytes: the first four of both whole, and in their
    upper bits the upper bits of the last four."""
    first, second, low = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    steps = np.concatenate([first & 63, (low & 15) | (first >> 6) << 4], axis=1)
    lows = np.concatenate([second & 63, (low >> 4) | (second >> 6) << 4], axis=1)
    return steps, lows


def _in_eighths(blocks: Blocks, whole: npt.NDArray[np.uint8]) -> Array:
    """Weights of Q4_K and Q5_K from their grid ``(n, 8, 32)``: each eighth has a step and a lowest value."""
    steps, lows = _steps_and_lows(blocks[:, 4:16])
    step, low = _half(blocks, 0) * steps, _half(blocks, 2) * lows
    return (step[:, :, None] * whole - low[:, :, None]).reshape(len(blocks), 256)


def _pairs(packed: Blocks) -> npt.NDArray[np.uint8]:
    """128 bytes as 8 times 32 halves: those of 32 bytes' low ends, then of their high ends, and so on."""
    quarters = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([quarters & 15, quarters >> 4], axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Blocks) -> Array:
    return _in_eighths(blocks, _pairs(blocks[:, 16:]))


def _q5_k(blocks: Blocks) -> Array:
    fifths = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    return _in_eighths(blocks, _pairs(blocks[:, 48:]) | fifths << np.uint8(4))


def _q6_k(blocks: Blocks) -> Array:
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    whole = (low | (high & 3) << 4).reshape(-1, 16, 16).astype(np.float32) - 32
    step = _half(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return (step[:, :, None] * whole).reshape(len(blocks), 256)


def _plain(kind: Any) -> Callable[[Blocks], Array]:
    return lambda blocks: np.ascontiguousarray(blocks).view(kind).astype(np.float32)


def _bfloat16(blocks: Blocks) -> Array:
    return (np.ascontiguousarray(blocks).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


KINDS: dict[int, Kind] = {
    0: Kind("F32", 1, 4, _plain(np.float32)),
    1: Kind("F16", 1, 2, _plain(np.float16)),
    2: Kind("Q4_0", 32, 18, _q4_0),
    3: Kind("Q4_1", 32, 20, _q4_1),
    6: Kind("Q5_0", 32, 22, _q5_0),
    7: Kind("Q5_1", 32, 24, _q5_1),
    8: Kind("Q8_0", 32, 34, _q8_0),
    12: Kind("Q4_K", 256, 144, _q4_k),
    13: Kind("Q5_K", 256, 176, _q5_k),
    14: Kind("Q6_K", 256, 210, _q6_k),
    30: Kind("BF16", 1, 2, _bfloat16),
}
"""GGUF's number of a kind -> how to read it."""
