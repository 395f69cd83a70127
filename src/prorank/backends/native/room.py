"""Where packed weights lie: in this process, or in a file in memory that several processes of one model map.

The first of them packs, the others find what it has packed; nothing is written after that.

    with packed_in(handle):
        backend = NativeBackend(folder, label_ids)
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LINE", "Room", "packed_in"]

LINE = 64  # bytes: what native.c reads at a time begins at a multiple of it
_HEAD = 4096  # bytes at the file's beginning: says of what the rest is, and is written last
_handle: ContextVar[int | None] = ContextVar("handle", default=None)


@contextlib.contextmanager
def packed_in(handle: int) -> Iterator[None]:
    """What is opened meanwhile packs its weights into this file; it is empty at first, and only one opens at a time
    until the first is open."""
    token = _handle.set(handle)
    try:
        yield
    finally:
        _handle.reset(token)


class Room:
    """Hands out arrays, each beginning at a multiple of LINE bytes.

    Args:
        sizes: bytes of all of them, in the order in which they are taken.
        content: what they are made of; a file with another content is left alone.
    """

    def __init__(self, sizes: Sequence[int], content: str) -> None:
        needed = sum(map(_whole_lines, sizes))
        self._mark = content.encode()[-_HEAD:].ljust(_HEAD, b"\0")
        self._at = 0
        self.ready = False
        """The arrays hold their numbers already."""
        self._shared = self._mapped(needed)
        if self._shared is None:
            room: npt.NDArray[np.uint8] = np.empty(needed + LINE, dtype=np.uint8)
            self._bytes = room[-room.ctypes.data % LINE :]
        else:
            self._bytes = np.frombuffer(self._shared, dtype=np.uint8)[_HEAD:]

    def take(self, shape: tuple[int, ...], kind: type) -> npt.NDArray[Any]:
        """The next array."""
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        taken = self._bytes[self._at : self._at + size]
        self._at += _whole_lines(size)
        return taken.view(kind).reshape(shape)

    def filled(self) -> None:
        """All arrays have their numbers: others may read them."""
        if self._shared is not None and not self.ready:
            self._shared[:_HEAD] = self._mark

    def _mapped(self, needed: int) -> mmap.mmap | None:
        handle = _handle.get()
        if handle is None:
            return None
        size = os.fstat(handle).st_size
        head = os.pread(handle, _HEAD, 0).strip(b"\0") if size else b""
        if head and (head != self._mark.strip(b"\0") or size != _HEAD + needed):
            return None
        if head:
            self.ready = True
            return mmap.mmap(handle, size, access=mmap.ACCESS_READ)
        try:  # empty, or whoever was to fill it died
            os.ftruncate(handle, _HEAD + needed)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, _HEAD + needed)  # no room is an error here, not a crash later
            return mmap.mmap(handle, _HEAD + needed)
        except OSError:
            return None


def _whole_lines(size: int) -> int:
    return -(-size // LINE) * LINE
