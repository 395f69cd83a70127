"""Opens the package's C file as a library: the wheel's, or one compiled once per machine with whichever compiler is
installed."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prorank.backends.native.binaries import carried, source_files
from prorank.cache import cache_dir

__all__ = ["compiled", "compiler", "opened"]

logger = logging.getLogger(__name__)

_TIMEOUT = 300  # seconds


def opened(source: Path, flags: Sequence[str]) -> tuple[ctypes.CDLL, str]:
    """A C file as a library, and where it comes from, in words: the wheel's, else as :func:`compiled`.

    Raises:
        ImportError: neither; says what to do.
    """
    found = carried(source, flags)
    if found is not None:
        try:
            return ctypes.CDLL(str(found[0])), f"from the wheel ({found[1]})"
        except OSError as error:  # another C library than the wheel's, such as musl
            logger.info("native: %s cannot be opened (%s): the engine is compiled instead", found[0], error)
    return compiled(source, flags), f"compiled by {Path(compiler()[0]).name}"


def compiled(source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """A C file, with the headers beside it, as a library.

    It comes from the cache where this compiler and these flags have made it before. Where the cache cannot be written
    to, it is compiled for this process alone, and a warning says so.

    Raises:
        ImportError: there is no compiler, it fails, or the library cannot be opened; says what to do.
    """
    command = [*compiler(), *flags]
    parts = [*(file.read_bytes() for file in source_files(source)), *(part.encode() for part in command)]
    named = hashlib.sha256(b"\0".join(parts)).hexdigest()
    path = cache_dir("native", f"{source.stem}-{named[:16]}.so")
    with contextlib.suppress(OSError):  # not there, or damaged: it is made anew
        if path.is_file():
            return ctypes.CDLL(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = tempfile.TemporaryDirectory(dir=path.parent, prefix="making-")
    except OSError as error:
        logger.warning("native: the cache cannot be written to (%s): compiling for this process alone", error)
        return _for_this_process(command, source)
    with aside as folder:  # a concurrent process writes the same file
        made = _make(command, source, Path(folder))
        with contextlib.suppress(OSError):
            os.replace(made, path)
            made = path
        return _loaded(made)


def _for_this_process(command: Sequence[str], source: Path) -> ctypes.CDLL:
    try:
        aside = tempfile.TemporaryDirectory(prefix="prorank-native-", ignore_cleanup_errors=True)
    except OSError as error:
        raise ImportError(f"native: no folder to compile in: {error}; set PRORANK_CACHE to one") from error
    with aside as folder:
        return _loaded(_make(command, source, Path(folder)))


def _make(command: Sequence[str], source: Path, folder: Path) -> Path:
    made = folder / f"{source.stem}.so"
    _run([*command, "-shared", "-fPIC", "-o", str(made), str(source), "-lm"])
    return made


def _loaded(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(
            f"native: the compiled library cannot be opened ({error}); set PRORANK_CACHE to a folder of a file system "
            "that lets programs run, or use another --backend"
        ) from error


def compiler() -> list[str]:
    """The command of a C compiler: ``$CC``, else cc, gcc or clang, else the one in PyPI's ``ziglang``.

    Raises:
        ImportError: there is none.
    """
    named = os.environ.get("CC")
    if named:
        return shlex.split(named)
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found is not None:
        return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise ImportError("no C compiler: install gcc or clang, or the one that comes with: pip install 'prorank[native]'")


def _run(command: Sequence[str]) -> None:
    named = f"native: the C compiler `{shlex.join(compiler())}`"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImportError(f"{named} did not run: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        fault = next((line for line in said if "error" in line), said[0] if said else f"exit code {done.returncode}")
        raise ImportError(f"{named} failed: {fault}")
