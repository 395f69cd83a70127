"""Files packed into parts of a given size, with their sha256, and unpacked again: for channels that carry little."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from prorank.files import sha256_file

__all__ = ["pack", "unpack"]


def pack(files: dict[str, Path], folder: Path, limit: int) -> list[str]:
    """A tar of the files, cut into ``part-000`` and so on, with ``parts.json`` to check them by.

    Args:
        files: name over there -> file here.
        limit: bytes of a part.
    """
    for old in folder.glob("part-*"):
        old.unlink()
    with _Parts(folder, limit) as parts, tarfile.open(fileobj=parts, mode="w|") as archive:
        for name, file in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(entry, content)
    names = [file.name for file in sorted(folder.glob("part-*"))]
    listed = {name: sha256_file(folder / name) for name in names}
    (folder / "parts.json").write_text(json.dumps(listed, indent=1) + "\n", "utf-8")
    return names


def unpack(parts: Path, work: Path) -> None:
    """Check the parts and write their files; nothing is done where that was done before.

    Raises:
        ValueError: a part is missing or damaged.
    """
    listed = (parts / "parts.json").read_text("utf-8") if (parts / "parts.json").is_file() else None
    if listed is None:
        raise ValueError(f"--parts: {parts} holds no parts.json")
    done = work / "parts.json"
    if done.is_file() and done.read_text("utf-8") == listed:
        return
    names: dict[str, str] = json.loads(listed)
    missing = [name for name in names if not (parts / name).is_file()]
    if missing:
        raise ValueError(f"--parts: {len(missing)} of {len(names)} parts are missing, first {missing[0]}")
    for name, expected in names.items():
        if sha256_file(parts / name) != expected:
            raise ValueError(f"--parts: {name} is damaged (its sha256 is not the one in parts.json); carry it again")
    work.mkdir(parents=True, exist_ok=True)
    with _Joined([parts / name for name in names]) as whole, tarfile.open(fileobj=whole, mode="r|") as archive:
        archive.extractall(work, filter="data")
    done.write_text(listed, "utf-8")


class _Parts:
    """A writable stream that starts a new file every ``limit`` bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit, self.number, self.room = folder, limit, 0, 0
        self.file: BinaryIO | None = None

    def write(self, content: bytes) -> int:
        start = 0
        while start < len(content):
            if not self.room:
                self.__exit__()
                self.file = (self.folder / f"part-{self.number:03}").open("wb")
                self.number, self.room = self.number + 1, self.limit
            assert self.file is not None
            written = self.file.write(content[start : start + self.room])
            start, self.room = start + written, self.room - written
        return len(content)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()


class _Joined:
    """A readable stream over files one after the other."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files, self.file = list(files), None

    def read(self, size: int) -> bytes:
        content = b""
        while len(content) < size and (self.file is not None or self.files):
            self.file: Any = self.file or self.files.pop(0).open("rb")
            more = self.file.read(size - len(content))
            if not more:
                self.__exit__()
            content += more
        return content

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
        self.file = None
