"""Lines of text files, plain or gzipped, with errors that say where: ``file:line: reason``. Knows no format."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, cast

__all__ = [
    "existing", "json_lines", "malformed", "parsed_json", "raw_lines", "text_lines", "whole_number", "write_text",
]  # fmt: skip


def malformed(path: Path, line: int, reason: str) -> ValueError:
    """The error of a malformed line: ``file:line: reason``."""
    return ValueError(f"{path}:{line}: {reason}")


def existing(path: Path) -> Path | None:
    """``path`` or ``path.gz``, whichever is there; None where neither is."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def raw_lines(path: Path, stream: BinaryIO | None = None) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its end) of a UTF-8 file, gunzipped where the name ends in ``.gz``.

    A byte order mark is dropped.

    Args:
        stream: read this, and use ``path`` as its name only.

    Raises:
        ValueError: a line is not UTF-8, or the gzip stream is damaged (with the line reached).
    """
    number = 0
    with nullcontext(stream) if stream is not None else _opened(path) as source:
        while True:
            try:
                raw = source.readline()
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise malformed(path, number + 1, f"the gzip stream is damaged ({error})") from None
            if not raw:
                return
            number += 1
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise malformed(path, number, f"not UTF-8 (byte {error.start} is 0x{raw[error.start]:02x})") from None


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb"))


def text_lines(path: Path, stream: BinaryIO | None = None) -> Iterator[tuple[int, str]]:
    """`raw_lines` without their ends; lines of white space alone are skipped."""
    for number, raw in raw_lines(path, stream):
        line = raw.rstrip("\r\n")
        if line.strip():
            yield number, line


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON-lines file.

    Raises:
        ValueError: a line is not JSON, or not an object.
    """
    for number, line in text_lines(path):
        value = parsed_json(path, number, line)
        if not isinstance(value, dict):
            raise malformed(path, number, f"expected a JSON object, got {type(value).__name__}")
        yield number, value


def parsed_json(path: Path, number: int, text: str) -> Any:
    """The JSON value in a text that begins at line ``number``.

    Raises:
        ValueError: it is not JSON, or an object has one key twice (of which all but the last would be lost).
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1
        raise malformed(path, line, f"not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise malformed(path, number, "JSON nested too deeply") from None
    except ValueError as error:
        raise malformed(path, number, str(error)) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} comes twice in one object")
    return found


def whole_number(text: str) -> int | None:
    """The integer that a cell holds, as pandas writes it, too ("1.0"); None where it holds something else."""
    found = re.fullmatch(r"\s*([+-]?\d{1,18})(?:\.0*)?\s*", text)
    return int(found[1]) if found else None


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
