"""SHA-256 of large files, computed once: weights of gigabytes are not read anew at every load only to be named."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from prorank.cache import cache_dir
from prorank.files import sha256_file, write_atomic

__all__ = ["known_sha256"]

_SETTLED_SECONDS = 2.0
"""A file changed less than this ago may change again within one tick of the file system's clock: not remembered."""


def known_sha256(*paths: Path) -> str:
    """:func:`prorank.files.sha256_file`, remembered in the cache for as long as path, size, times and inode stay.

    Where the cache cannot be written the files are hashed every time. What has to be proved (a download, a manifest)
    is hashed by :func:`prorank.files.sha256_file` itself.
    """
    facts = [_facts(path) for path in paths]
    name = hashlib.sha256("\n".join(str(path.resolve()) for path in paths).encode()).hexdigest()
    note = cache_dir("hashes", f"{name[:32]}.json")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(note.read_text("utf-8"))
        if found["files"] == facts:
            return str(found["sha256"])
    sha256 = sha256_file(*paths)
    settled = time.time() - _SETTLED_SECONDS > max(max(times) for _, *times, _ in facts) / 1e9
    if settled and facts == [_facts(path) for path in paths]:
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(note, json.dumps({"files": facts, "sha256": sha256}))
    return sha256


def _facts(path: Path) -> list[int]:
    """Size, times in nanoseconds, inode."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
