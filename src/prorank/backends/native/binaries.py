"""Our own engine as a wheel carries it: compiled for several systems when the wheel was built (``hatch_build.py``).

An index beside ``native.c`` says what every library was compiled from and with which flags. A library is taken only
where both are what this installation would compile itself; an editable installation has no index.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["FOLDER", "INDEX", "NAMES", "carried", "source_files", "sources_sha256", "system"]

logger = logging.getLogger(__name__)

INDEX = "binaries.json"
"""``sources``: hash of what was compiled; ``compiler``; ``libraries``: ``system``, ``file``, ``flags``, ``sha256`` of
each."""
FOLDER = "binaries"
NAMES = ("prorank_begin", "prorank_pack", "prorank_run", "prorank_space")
"""What a library exports."""

_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}


def system() -> str:
    """Such as ``linux-x86_64``, ``darwin-arm64`` or ``win32-x86_64``."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{_MACHINES.get(machine, machine)}"


def source_files(source: Path) -> list[Path]:
    """A C file and the headers beside it."""
    return [source, *sorted(source.parent.glob("*.h"))]


def sources_sha256(source: Path) -> str:
    """Hash of a C file and the headers beside it."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in source_files(source))).hexdigest()


def carried(source: Path, flags: Sequence[str]) -> tuple[Path, str] | None:
    """The library for this system and these flags, and the compiler that made it; None where there is none, or it is
    of other sources, or damaged."""
    index = source.with_name(INDEX)
    if not index.is_file():
        return None
    try:
        listed = json.loads(index.read_text("utf-8"))
        if listed["sources"] != sources_sha256(source):
            logger.debug("native: the package's libraries are of other sources")
            return None
        for one in listed["libraries"]:
            if one["system"] == system() and one["flags"] == list(flags):
                path = source.parent / str(one["file"])
                if hashlib.sha256(path.read_bytes()).hexdigest() == one["sha256"]:
                    return path, str(listed["compiler"])
                logger.warning("native: %s is damaged: the engine is compiled instead", path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("native: %s is damaged (%r): the engine is compiled instead", index, error)
    return None
