"""Compiles the package's C file once per machine with whichever compiler is installed."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prorank.cache import cache_dir

__all__ = ["compiled", "compiler", "processor_features"]

_TIMEOUT = 300  # seconds


def compiled(source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """A C file, with the headers beside it, as a library.

    It comes from the cache where this compiler and these flags have made it before.

    Raises:
        ImportError: there is no compiler, or it fails; says what to do.
    """
    command = [*compiler(), *flags]
    files = [source, *sorted(source.parent.glob("*.h"))]
    parts = [*(file.read_bytes() for file in files), *(part.encode() for part in command)]
    named = hashlib.sha256(b"\0".join(parts)).hexdigest()
    path = cache_dir("native", f"{source.stem}-{named[:16]}.so")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # a concurrent process writes the same file
            made = Path(folder) / path.name
            _run([*command, "-shared", "-fPIC", "-o", str(made), str(source), "-lm"])
            os.replace(made, path)
    return ctypes.CDLL(str(path))


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


def processor_features() -> frozenset[str]:
    """What Linux says this processor can do, such as ``avx512_vnni``; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.is_file() else []
    found = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(found.split())


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImportError(f"{shlex.join(command)}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ImportError(f"{shlex.join(command)}: {said[0] if said else f'exit code {done.returncode}'}")
