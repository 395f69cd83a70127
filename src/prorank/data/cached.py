"""Runs and embeddings kept on disk, under the hash of everything they depend on."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from prorank.cache import cache_dir
from prorank.files import write_atomic
from prorank.types import Run

__all__ = ["cached", "keep"]


def cached(key: Sequence[object], compute: Callable[[], Run]) -> Run:
    """The run kept under ``key``, or computed and kept. A damaged file is computed anew."""
    digest = hashlib.sha256(json.dumps([str(part) for part in key]).encode()).hexdigest()[:32]
    path = cache_dir("first-stage") / f"{key[0]}-{digest}.json.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            run: Run = json.load(stream)
            return run
    except (OSError, EOFError, ValueError, zlib.error):
        run = compute()
    keep(path, gzip.compress(json.dumps(run, ensure_ascii=True).encode(), compresslevel=3, mtime=0))
    return run


def keep(path: Path, content: bytes) -> None:
    """Write to the cache; two processes may compute the same, and a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError:
        return
