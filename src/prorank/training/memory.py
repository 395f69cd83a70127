"""Keeps freed memory in the process, so that training does not ask the system for the same pages at every step."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of mallopt(3)
_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Tell glibc to serve blocks of up to a gigabyte from its own heap and to keep what is freed.

    As it comes, glibc maps every block above some megabytes anew and gives it back when it is freed; a training step on
    a CPU then spends a tenth of its time in page faults. Scoring frees and takes the same few sizes and gains nothing.

    Returns:
        Whether the C library knows these settings (glibc on Linux does; elsewhere nothing happens).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _BYTES))
