"""Margins of pairs that were scored before, in memory or in a SQLite file; bounded, and off unless asked for.

A pair is known by hashes: the reranker's fingerprint (weights, template, limits, backend) with the prompt's ids up to
the document (instruction and query), and the ids from there on. No text is kept. It knows no model: :func:`through`
takes the function that scores what is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
import warnings
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from prorank.types import EncodedGroup

__all__ = ["FilePairs", "MemoryPairs", "PairCache", "PairStore", "open_pair_cache", "through"]

MEMORY_PAIRS = 100_000
"""About 20 MB."""
FILE_PAIRS = 2_000_000
"""About 100 MB on disk."""

Margins = npt.NDArray[np.float32]


class PairStore(Protocol):
    """Where margins are kept."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """What is known of these."""
        ...

    def put(self, margins: Mapping[bytes, float]) -> None:
        """Keep these; the bound may push out others."""
        ...


class MemoryPairs:
    """The pairs that were asked for last, in this process.

    Args:
        size: how many.
    """

    def __init__(self, size: int = MEMORY_PAIRS) -> None:
        if size < 1:
            raise ValueError(f"pair_cache: the number of pairs must be at least 1, got {size}")
        self._margins: LRUCache[bytes, float] = LRUCache(size)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """See :class:`PairStore`."""
        return {key: margin for key in keys if (margin := self._margins.get(key)) is not None}

    def put(self, margins: Mapping[bytes, float]) -> None:
        """See :class:`PairStore`."""
        self._margins.update(margins)


class FilePairs:
    """The pairs that were scored last, in a SQLite file that several processes may share.

    Args:
        path: made where it does not exist.
        size: how many; the oldest go first.

    Raises:
        ValueError: the file cannot be opened, or is something else.
    """

    def __init__(self, path: Path, size: int = FILE_PAIRS) -> None:
        self._size = size
        try:
            self._database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS pairs (place INTEGER PRIMARY KEY, pair BLOB UNIQUE, margin REAL)"
            )
            self._database.execute("SELECT place, pair, margin FROM pairs LIMIT 1")
        except sqlite3.Error as error:
            raise ValueError(f"pair_cache {path}: not a SQLite file of ours, or not writable: {error}") from None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """See :class:`PairStore`."""
        found: dict[bytes, float] = {}
        for start in range(0, len(keys), 500):  # as many as one statement surely takes
            some = keys[start : start + 500]
            marks = ", ".join("?" * len(some))
            found.update(self._database.execute(f"SELECT pair, margin FROM pairs WHERE pair IN ({marks})", some))
        return found

    def put(self, margins: Mapping[bytes, float]) -> None:
        """See :class:`PairStore`."""
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany("INSERT OR IGNORE INTO pairs (pair, margin) VALUES (?, ?)", margins.items())
            # Places only grow, so that the newest ``size`` of them are known without counting.
            database.execute("DELETE FROM pairs WHERE place <= (SELECT max(place) FROM pairs) - ?", (self._size,))
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise


class PairCache:
    """A store, and how often it was of use. Threads may share it."""

    def __init__(self, store: PairStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.hits = 0
        """Rows whose margin was there."""
        self.misses = 0
        """Rows that had to be scored."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """What is known of these rows. A store that cannot be read knows nothing, and says so once."""
        found: dict[bytes, float] = {}
        with self._lock:
            with self._troubled():
                found = self._store.get(keys)
            hits = sum(key in found for key in keys)
            self.hits += hits
            self.misses += len(keys) - hits
        return found

    def put(self, margins: Mapping[bytes, float]) -> None:
        """Keep these; a store that cannot be written keeps nothing, and says so once."""
        with self._lock, self._troubled():
            self._store.put(margins)

    @contextlib.contextmanager
    def _troubled(self):  # type: ignore[no-untyped-def]
        try:
            yield
        except sqlite3.Error as error:  # locked, or the disk is full: scores matter more than their cache
            warnings.warn(f"pair_cache: {error}; going on without", RuntimeWarning, stacklevel=4)


def open_pair_cache(where: str) -> PairCache:
    """``memory``, ``memory:N`` (pairs), or the path of a file.

    Raises:
        ValueError: N is no number of at least 1, or the file cannot be opened or is something else.
    """
    kind, _, count = where.partition(":")
    if kind == "memory":
        if count and not (count.isascii() and count.isdigit()):
            raise ValueError(f"pair_cache must be memory, memory:N or a file, got {where!r}")
        return PairCache(MemoryPairs(int(count)) if count else MemoryPairs())
    return PairCache(FilePairs(Path(where).expanduser()))


def through(
    cache: PairCache,
    fingerprint: str,
    groups: Sequence[EncodedGroup],
    score: Callable[[list[EncodedGroup]], list[Margins]],
    on_found: Callable[[int], None] | None = None,
) -> list[Margins]:
    """Margins of every row of every group; only rows that the cache does not know go to ``score``.

    Args:
        fingerprint: of the reranker.
        on_found: called with the number of rows that were known.
    """
    keys = [_keys(fingerprint, group) for group in groups]
    known = cache.get([key for of in keys for key in of])
    missing = [[row for row, key in enumerate(of) if key not in known] for of in keys]
    if on_found is not None and (found := sum(map(len, keys)) - sum(map(len, missing))):
        on_found(found)
    asked = [
        group._replace(own_ids=[group.own_ids[row] for row in rows])
        for group, rows in zip(groups, missing, strict=True)
    ]
    if any(missing):
        scored = {
            of[row]: float(margin)
            for of, rows, margins in zip(keys, missing, score(asked), strict=True)
            for row, margin in zip(rows, margins, strict=True)
        }
        cache.put(scored)
        known |= scored
    return [np.array([known[key] for key in of], dtype=np.float32) for of in keys]


def _keys(fingerprint: str, group: EncodedGroup) -> list[bytes]:
    query = hashlib.sha256(fingerprint.encode() + b"\0" + array("I", group.prefix_ids).tobytes())
    keys = []
    for own in group.own_ids:
        pair = query.copy()
        pair.update(hashlib.sha256(array("I", own).tobytes()).digest())
        keys.append(pair.digest()[:20])
    return keys
