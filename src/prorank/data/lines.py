"""Lines of text files, plain or gzipped, with errors that say where: ``file:line: reason``. Knows no format."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

__all__ = ["existing", "json_lines", "malformed", "text_lines", "write_text"]


def malformed(path: Path, line: int, reason: str) -> ValueError:
    """The error of a malformed line: ``file:line: reason``."""
    return ValueError(f"{path}:{line}: {reason}")


def existing(path: Path) -> Path | None:
    """``path`` or ``path.gz``, whichever is there; None where neither is."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end) of a UTF-8 file, gunzipped where the name ends in ``.gz``.

    Empty lines are skipped, a byte order mark is dropped.

    Raises:
        ValueError: a line is not UTF-8, or the gzip stream is damaged (with the line reached).
    """
    number = 0
    with cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")) as stream:
        while True:
            try:
                raw = stream.readline()
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise malformed(path, number + 1, f"the gzip stream is damaged ({error})") from None
            if not raw:
                return
            number += 1
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise malformed(path, number, f"not UTF-8 (byte {error.start} is 0x{raw[error.start]:02x})") from None
            if line.strip():
                yield number, line


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON-lines file.

    Raises:
        ValueError: a line is not JSON, or not an object.
    """
    for number, line in text_lines(path):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise malformed(path, number, f"not JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(value, dict):
            raise malformed(path, number, f"expected a JSON object, got {type(value).__name__}")
        yield number, value


def write_text(path: Path, lines: Iterator[str] | list[str]) -> None:
    """Write lines to a UTF-8 file; gzipped (without a time stamp, so equal content is equal bytes) for ``.gz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        with open(path, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as stream:
            for line in lines:
                stream.write(line.encode() + b"\n")
    else:
        with open(path, "w", encoding="utf-8", newline="\n") as text:
            text.writelines(f"{line}\n" for line in lines)
