"""Writing files so that a crash leaves the old state or the new one, never half of it; and hashing them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_file", "atomic_folder", "sha256_file", "write_atomic"]


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write aside, fsync, rename: readers see the old file or the new one."""
    with atomic_file(path) as aside:
        aside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """An empty file to fill; on leaving it takes the place of ``path``, on an error nothing changes."""
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """A folder to fill; on leaving it replaces ``path`` as a whole, on an error nothing changes.

    An existing folder is moved aside for the moment of the exchange and deleted afterwards.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield aside
        for file in sorted(aside.rglob("*")):
            if file.is_file():
                os.chmod(file, 0o644)
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        os.chmod(aside, 0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.rename(path, old / "folder")
            os.rename(aside, path)
            shutil.rmtree(old)
        else:
            os.rename(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def sha256_file(*paths: Path | str) -> str:
    """SHA-256 of the files' bytes, one after the other, as hex."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
