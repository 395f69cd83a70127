"""The progress of a long run on disk: one JSON line a finished piece, appended, so that kill -9 loses at most one.

The first line names what the run depends on; a journal of another run is never continued. A last line without its
line end (the process died while writing) is cut off; a damaged line elsewhere is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Journal", "journal_key"]

_VERSION = 1


def journal_key(parts: Mapping[str, Any]) -> str:
    """sha256 of everything a run's scores depend on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str).encode()).hexdigest()


class Journal:
    """An append-only file of finished pieces; a context manager, because the file stays open and locked.

    Args:
        path: made where it is not there.
        key: of :func:`journal_key`.
        facts: the parts of the key by name, as texts: a refusal then says which of them differ.
        what: what a refusal calls the work.
        restart: throw an old journal away.

    Raises:
        ValueError: the journal belongs to another run, a line is damaged, or another process is writing it.
    """

    def __init__(
        self, path: Path, key: str, *, facts: Mapping[str, str] | None = None, what: str = "evaluation",
        restart: bool = False,
    ) -> None:  # fmt: skip
        self.path, self._facts, self._what = path, dict(facts or {}), what
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b")  # noqa: SIM115  open for as long as the journal is
        try:
            self._lock()
            if restart:
                self._file.truncate(0)
            self.entries = self._read(key)
        except BaseException:
            self._file.close()
            raise

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one finished piece; on disk when this returns."""
        self._write(entry)
        self.entries.append(dict(entry))

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # no such locks on Windows: two writers are the user's own care there
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"out: another process is writing {self.path}") from None

    def _read(self, key: str) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        lines = whole.splitlines()
        if not lines:
            self._write({"journal": _VERSION, "key": key, **({"facts": self._facts} if self._facts else {})})
            return []
        entries = []
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                assert isinstance(entry, dict)
            except (ValueError, AssertionError):
                raise ValueError(f"{self.path}:{number}: damaged line; start over with --restart") from None
            entries.append(entry)
        if entries[0].get("journal") != _VERSION or entries[0].get("key") != key:
            raise ValueError(
                f"out: {self.path} belongs to another {self._what} ({self._difference(entries[0])}); choose another "
                "folder, or start over with --restart"
            )
        return entries[1:]

    def _difference(self, header: Mapping[str, Any]) -> str:
        before = header.get("facts") or {}
        changed = [name for name, value in self._facts.items() if name in before and before[name] != value]
        if not changed:
            return "model, data, candidates or settings differ"
        shown = [f"{name} was {before[name]}, is {self._facts[name]}" for name in changed]
        return "; ".join(shown)

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry, ensure_ascii=True).encode() + b"\n")
        self._file.flush()
        with contextlib.suppress(OSError):  # pipes and some network file systems know no fsync
            os.fsync(self._file.fileno())
