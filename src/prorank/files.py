"""Writing files so that a crash leaves the old state or the new one, never half of it; and hashing them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["atomic_file", "atomic_folder", "folder_lock", "link_file", "recover_folder", "sha256_file", "write_atomic"]


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write aside, fsync, rename: readers see the old file or the new one."""
    with atomic_file(path) as aside:
        aside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def link_file(file: Path, target: Path) -> None:
    """The same file under a second name, so that neither depends on the other; a copy across file systems."""
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copyfile(file, target)


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

    Two renames take the old folder away and put the complete new one in its place. A kill between them leaves both
    beside ``path``; :func:`recover_folder` finishes the exchange, and so does the next call. Writers of the same path
    take turns.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(path):
        _recover(path)
        for leftover in _left(path, "building", "ready", "old"):  # of killed writers: the lock says nobody is at work
            _delete(leftover)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.building."))
        try:
            yield aside
            for file in sorted(aside.rglob("*")):
                if file.is_file():
                    os.chmod(file, 0o644)
                    with file.open("rb") as opened:
                        os.fsync(opened.fileno())
            os.chmod(aside, 0o755)
            _sync_folder(aside)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _exchange(aside, path)


def recover_folder(path: Path | str) -> None:
    """Where a kill left ``path`` missing between the two renames of :func:`atomic_folder`, put the newest version back.

    Call it before looking whether ``path`` exists. It does nothing, and costs one look, where the folder is there.
    """
    path = Path(path)
    if not path.exists() and path.parent.is_dir() and _left(path, "ready", "old"):
        with folder_lock(path):
            _recover(path)


@contextlib.contextmanager
def folder_lock(path: Path | str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Exclusive use of a path among processes and threads, by a lock file beside it that is removed afterwards.

    A killed holder leaves no lock behind. A file system without locks is used without.

    Args:
        on_wait: called once where somebody else holds the lock.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    while True:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
                on_wait = None
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            break  # no locks here
        if _is(lock, handle):
            break
        os.close(handle)  # the holder before us has removed the file that we waited for
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


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


def _exchange(aside: Path, path: Path) -> None:
    """Put the complete folder in the place of ``path``; the name it has meanwhile says that it is complete."""
    suffix = aside.name.rpartition(".")[2]
    ready, old = (path.with_name(f".{path.name}.{kind}.{suffix}") for kind in ("ready", "old"))
    os.rename(aside, ready)
    try:
        if path.exists():
            os.rename(path, old)
        os.rename(ready, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.rename(old, path)
        if path.exists():
            _delete(ready)
        raise
    _sync_folder(path.parent)
    _delete(old)


def _recover(path: Path) -> None:
    """With the lock held: a complete new version first, else the old one."""
    for kind in ("ready", "old"):
        if not path.exists() and (found := _left(path, kind)):
            os.rename(max(found, key=lambda folder: folder.stat().st_mtime_ns), path)


def _left(path: Path, *kinds: str) -> list[Path]:
    """What writers of ``path`` have left beside it."""
    name = re.compile(rf"\.{re.escape(path.name)}\.({'|'.join(kinds)})\.[a-z0-9_]{{8}}")
    return [found for found in path.parent.iterdir() if name.fullmatch(found.name)]


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is(path: Path, handle: int) -> bool:
    """Whether the open file is the one that stands at ``path``."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
