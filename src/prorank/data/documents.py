"""Documents to rank, from the files that people have: text lines, JSON lines, TSV, CSV, Parquet, a TREC run + corpus.

An object's text is under ``text`` (or ``content``, ``passage``, ``document``, ``body``), its title under ``title``, its
id under ``_id`` (or ``doc_id``, ``docid``, ``id``). A malformed line is reported with file, line and reason.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prorank._optional import require
from prorank.data.lines import malformed, text_lines
from prorank.data.trec import read_run, read_topics
from prorank.types import Document

__all__ = ["read_documents", "read_queries", "read_trec_lists"]

_TEXT = ("text", "content", "contents", "passage", "document", "body")
_ID = ("_id", "doc_id", "docid", "id")


def read_documents(source: str | Path) -> list[Document]:
    """Documents of a file by its ending (plain or .gz), or of standard input (``-``: text lines or JSON lines).

    Raises:
        ValueError: the ending is unknown, a line is malformed, or there is no document at all.
        OSError: the file cannot be read.
    """
    if str(source) == "-":
        documents = list(_from_lines(Path("standard input"), enumerate(_stdin_lines(), 1)))
    else:
        path = Path(source)
        ending = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
        readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".tsv": _tsv, ".csv": _csv}
        readers |= {".parquet": _parquet, ".txt": _txt, "": _txt}
        if ending not in readers:
            raise ValueError(f"--documents {source}: expected .txt, .jsonl, .json, .tsv, .csv or .parquet")
        documents = list(readers[ending](path))
    if not documents:
        raise ValueError(f"--documents {source}: there is no document in it")
    return documents


def read_queries(path: str | Path) -> dict[str, str]:
    """query_id -> text, from JSON lines (``_id`` and ``text``) or TSV.

    Raises:
        ValueError: a line is malformed.
    """
    path = Path(path)
    if path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        return {document.doc_id: document.text for document in _jsonl(path)}
    return {query_id: query.text for query_id, query in read_topics(path).items()}


def read_trec_lists(
    run: str | Path, corpus: str | Path, queries: Mapping[str, str]
) -> Iterator[tuple[str, str, Sequence[Document]]]:
    """(query_id, query, candidates in the run's order) for every query of the run.

    Raises:
        ValueError: the run names a query or a document that is not there.
    """
    documents = {document.doc_id: document for document in read_documents(corpus)}
    for query_id, ranked in read_run(run).items():
        if query_id not in queries:
            raise ValueError(f"--run {run}: query {query_id!r} is not among the queries")
        missing = [doc_id for doc_id in ranked if doc_id not in documents]
        if missing:
            raise ValueError(f"--run {run}: {len(missing)} documents are not in {corpus}, the first is {missing[0]!r}")
        yield query_id, queries[query_id], [documents[doc_id] for doc_id in ranked]


def _stdin_lines() -> Iterator[str]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"standard input:{number}: not UTF-8 (byte {error.start})") from None


def _from_lines(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[Document]:
    """Text lines; JSON lines where the first line is a JSON object or string."""
    as_json: bool | None = None
    position = 0
    for number, line in lines:
        if not line.strip():
            continue
        if as_json is None:
            as_json = _is_json(line)
        if as_json:
            yield _from_value(path, number, _parsed(path, number, line), position)
        else:
            yield Document(str(position), line)
        position += 1


def _is_json(line: str) -> bool:
    if line.lstrip()[:1] not in ("{", '"'):
        return False
    try:
        return isinstance(json.loads(line), (dict, str))
    except json.JSONDecodeError:
        return line.lstrip().startswith("{")


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise malformed(path, number, f"not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise malformed(path, number, "JSON nested too deeply") from None


def _from_value(path: Path, number: int, value: Any, position: int) -> Document:
    if isinstance(value, str):
        return Document(str(position), value)
    if not isinstance(value, Mapping):
        raise malformed(path, number, f"expected a string or an object with 'text', got {type(value).__name__}")
    text = next((value[key] for key in _TEXT if value.get(key) is not None), None)
    if not isinstance(text, str):
        raise malformed(path, number, f"no string under 'text' (keys: {', '.join(map(str, value)) or 'none'})")
    found = next((value[key] for key in _ID if value.get(key) is not None), position)
    return Document(str(found), text, str(value.get("title") or ""))


def _txt(path: Path) -> Iterator[Document]:
    for position, (_, line) in enumerate(text_lines(path)):
        yield Document(str(position), line)


def _jsonl(path: Path) -> Iterator[Document]:
    for position, (number, line) in enumerate(text_lines(path)):
        yield _from_value(path, number, _parsed(path, number, line), position)


def _json(path: Path) -> Iterator[Document]:
    """A JSON array, or JSON lines under the wrong name."""
    text = "\n".join(line for _, line in text_lines(path))
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        yield from _jsonl(path)
        return
    for position, value in enumerate(values if isinstance(values, list) else [values]):
        yield _from_value(path, position + 1, value, position)


def _tsv(path: Path) -> Iterator[Document]:
    """``text``, ``id<TAB>text`` or ``id<TAB>title<TAB>text``; a header line that names a text column is honoured."""
    lines = text_lines(path)
    header: list[str] | None = None
    for position, (number, line) in enumerate(lines):
        cells = line.split("\t")
        if position == 0 and any(cell.strip().lower() in _TEXT for cell in cells):
            header = [cell.strip().lower() for cell in cells]
            continue
        if header is not None:
            if len(cells) != len(header):
                raise malformed(path, number, f"expected {len(header)} cells as in the header, got {len(cells)}")
            yield _from_value(path, number, dict(zip(header, cells, strict=True)), position - 1)
        elif len(cells) == 1:
            yield Document(str(position), cells[0])
        elif len(cells) in (2, 3):
            yield Document(cells[0], cells[-1], cells[1] if len(cells) == 3 else "")
        else:
            raise malformed(path, number, f"expected text, id+text or id+title+text by tabs, got {len(cells)} cells")


def _csv(path: Path) -> Iterator[Document]:
    csv.field_size_limit(1 << 30)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            names = [str(name).strip().lower() for name in reader.fieldnames or []]
            if not any(name in _TEXT for name in names):
                raise malformed(path, 1, f"the header names no text column (text, content, ...): {', '.join(names)}")
            reader.fieldnames = names
            for position, row in enumerate(reader):
                yield _from_value(path, reader.line_num, row, position)
        except (csv.Error, UnicodeDecodeError) as error:
            raise malformed(path, reader.line_num + 1, str(error)) from None


def _parquet(path: Path) -> Iterator[Document]:
    parquet = require("pyarrow.parquet", "parquet")
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # pyarrow's own errors
        raise ValueError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    names = [name for name in file.schema_arrow.names if name.lower() in (*_TEXT, *_ID, "title")]
    position = 0
    for batch in file.iter_batches(columns=names):
        for row in batch.to_pylist():
            yield _from_value(path, position + 1, {key.lower(): value for key, value in row.items()}, position)
            position += 1
