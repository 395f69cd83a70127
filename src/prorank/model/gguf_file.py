"""Reads GGUF files with numpy alone: metadata at once, weights row by row when they are asked for."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.model.built_in import BaseError
from prorank.model.dequantise import KINDS

__all__ = ["GgufFile"]

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's number of a type -> struct's letter."""
_TEXT, _LIST = 8, 9


class _Place(NamedTuple):
    """Where a tensor lies."""

    shape: tuple[int, ...]
    kind: int
    start: int


class GgufFile:
    """An open file.

    Raises:
        BaseError: it cannot be read, is no GGUF file of version 2 or 3, or ends early.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        """Keys as in the file; lists as Python lists."""
        self._places: dict[str, _Place] = {}
        self._at = 0
        try:
            self._bytes: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
            self._content = self._bytes.data
            self._read_header()
        except OSError as error:
            raise BaseError(f"{path}: {error.strerror or error}") from error
        except (struct.error, ValueError, IndexError, KeyError, TypeError, ArithmeticError) as error:
            if isinstance(error, BaseError):
                raise
            raise BaseError(f"{path}: not a readable GGUF file: damaged or cut off after byte {self._at}") from error

    @property
    def names(self) -> frozenset[str]:
        """Of the tensors."""
        return frozenset(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, rows first as in PyTorch."""
        return self._places[name].shape

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
        """A tensor's rows (a vector's numbers) from ``start`` to before ``stop``, in float32."""
        place = self._places[name]
        kind = KINDS[place.kind]
        if len(place.shape) < 2:
            size = place.shape[0] * kind.bytes // kind.weights
            return kind.read(self._bytes[place.start : place.start + size].reshape(-1, kind.bytes)).ravel()[start:stop]
        stop = place.shape[0] if stop is None else min(stop, place.shape[0])
        width = math.prod(place.shape[1:]) * kind.bytes // kind.weights
        blocks = self._bytes[place.start + start * width : place.start + stop * width].reshape(-1, kind.bytes)
        return kind.read(blocks).reshape(stop - start, *place.shape[1:])

    def _read_header(self) -> None:
        if bytes(self._content[:4]) != b"GGUF":
            raise BaseError(f"{self.path}: not a GGUF file")
        self._at = 4
        version = self._number(4)
        if version not in (2, 3):
            raise BaseError(f"{self.path}: GGUF version {version}; this prorank reads 2 and 3")
        tensors, values = self._number(10), self._number(10)
        for _ in range(values):
            key = self._text()
            self.metadata[key] = self._value(self._number(4))
        found = [self._tensor() for _ in range(tensors)]
        step = int(self.metadata.get("general.alignment", 32))
        data = -(-self._at // step) * step
        for name, shape, kind, offset in found:
            if not shape or min(shape) < 1:
                raise BaseError(f"{self.path}: {name} has no size: the file is damaged")
            if kind not in KINDS or shape[-1] % KINDS[kind].weights:
                known = ", ".join(one.name for one in KINDS.values())
                raise BaseError(f"{self.path}: {name} is stored as kind {kind}; this prorank reads {known}")
            size = math.prod(shape) * KINDS[kind].bytes // KINDS[kind].weights
            if data + offset + size > len(self._bytes):
                raise BaseError(
                    f"{self.path}: cut off: {name} ends at byte {data + offset + size}, the file at {len(self._bytes)}"
                )
            self._places[name] = _Place(shape, kind, data + offset)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        shape = tuple(self._number(10) for _ in range(self._number(4)))[::-1]
        return name, shape, self._number(4), self._number(10)

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind != _LIST:
            return self._number(kind)
        each, count = self._number(4), self._number(10)
        if each in (_TEXT, _LIST):
            return [self._value(each) for _ in range(count)]
        letter = _NUMBERS[each]
        size = struct.calcsize("<" + letter) * count
        part = self._content[self._at : self._at + size]
        self._at += size
        return list(struct.unpack(f"<{count}{letter}", part))

    def _number(self, kind: int) -> Any:
        letter = _NUMBERS[kind]
        (value,) = struct.unpack_from("<" + letter, self._content, self._at)
        self._at += struct.calcsize("<" + letter)
        return value

    def _text(self) -> str:
        size = self._number(10)
        part = bytes(self._content[self._at : self._at + size])
        if len(part) != size:
            raise IndexError
        self._at += size
        return part.decode("utf-8")
