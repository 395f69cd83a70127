"""Documents to rank, from the files that people have: text lines, JSON lines, TSV, CSV, Parquet, a TREC run + corpus.

A row's text is under ``text`` (or ``content``, ``contents``, ``passage``, ``document``, ``body``), its title under
``title``, its id under ``_id`` (or ``doc_id``, ``docid``, ``docno``, ``pid``, ``id``). A malformed line is reported
with file, line and reason.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prorank._optional import require
from prorank.data.lines import malformed, parsed_json, raw_lines, text_lines
from prorank.data.trec import read_run, read_topics, trec_id
from prorank.types import ID_FIELDS, TEXT_FIELDS, Document, columns_of_documents, document_of

__all__ = ["read_documents", "read_queries", "read_trec_lists"]

_QUERY_TEXT = ("text", "query", *TEXT_FIELDS[1:])
_QUERY_ID = ("_id", "query_id", "qid", *ID_FIELDS[1:])


def read_documents(source: str | Path, *, for_trec: bool = False) -> list[Document]:
    """Documents of a file by its ending (plain or .gz), or of standard input (``-``: text lines or JSON lines).

    Args:
        for_trec: refuse ids that TREC files cannot carry: empty, with white space, or given twice.

    Raises:
        ValueError: the ending is unknown, a line is malformed, or there is no document at all.
        OSError: the file cannot be read.
    """
    path, numbered = _numbered(source)
    documents = list(_for_trec(path, numbered) if for_trec else (document for _, document in numbered))
    if not documents:
        raise ValueError(f"--documents {source}: there is no document in it")
    return documents


def read_queries(path: str | Path) -> dict[str, str]:
    """query_id -> text, from JSON lines (``_id`` or ``query_id``, and ``text`` or ``query``) or TSV.

    Raises:
        ValueError: a line is malformed, or one id names two different texts.
    """
    path = Path(path)
    if path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        queries = _by_id(path, _jsonl(path, _QUERY_TEXT, _QUERY_ID))
        return {query_id: query.text for query_id, query in queries.items()}
    return {query_id: query.text for query_id, query in read_topics(path).items()}


def read_trec_lists(
    run: str | Path, corpus: str | Path, queries: Mapping[str, str]
) -> Iterator[tuple[str, str, Sequence[Document]]]:
    """(query_id, query, candidates in the run's order) for every query of the run.

    Raises:
        ValueError: the run names a query or a document that is not there, or one id names two different documents.
    """
    lists = read_run(run)
    path, numbered = _numbered(corpus)
    documents = _by_id(path, numbered, {doc_id for ranked in lists.values() for doc_id in ranked})
    if not documents and next(_numbered(corpus)[1], None) is None:
        raise ValueError(f"--corpus {corpus}: there is no document in it")
    for query_id, ranked in lists.items():
        if query_id not in queries:
            raise ValueError(f"--run {run}: query {query_id!r} is not among the queries")
        missing = [doc_id for doc_id in ranked if doc_id not in documents]
        if missing:
            raise ValueError(f"--run {run}: {len(missing)} documents are not in {corpus}, the first is {missing[0]!r}")
        yield query_id, queries[query_id], [documents[doc_id] for doc_id in ranked]


_Numbered = Iterator[tuple[int, Document]]
"""Documents with the number of the line (row, element) that each comes from."""


def _numbered(source: str | Path) -> tuple[Path, _Numbered]:
    if str(source) == "-":
        path = Path("standard input")
        return path, _from_lines(path, text_lines(path, sys.stdin.buffer))
    path = Path(source)
    ending = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".tsv": _tsv, ".csv": _csv}
    readers |= {".parquet": _parquet, ".txt": _txt, "": _txt}
    if ending not in readers:
        raise ValueError(f"--documents {source}: expected .txt, .jsonl, .json, .tsv, .csv or .parquet")
    return path, readers[ending](path)


def _for_trec(path: Path, numbered: _Numbered) -> Iterator[Document]:
    seen: set[str] = set()
    for number, document in numbered:
        try:
            trec_id(document.doc_id)
        except ValueError as error:
            raise malformed(path, number, str(error)) from None
        if document.doc_id in seen:
            raise malformed(path, number, f"the id {document.doc_id!r} comes a second time, which no TREC run may hold")
        seen.add(document.doc_id)
        yield document


def _by_id(path: Path, numbered: _Numbered, wanted: Container[str] | None = None) -> dict[str, Document]:
    """The same text under the same id may be repeated. With ``wanted``, others are read and not kept."""
    found: dict[str, Document] = {}
    for number, document in numbered:
        if wanted is not None and document.doc_id not in wanted:
            continue
        if found.setdefault(document.doc_id, document) != document:
            raise malformed(path, number, f"the id {document.doc_id!r} names two different texts")
    return found


def _from_lines(path: Path, lines: Iterable[tuple[int, str]]) -> _Numbered:
    """Text lines; JSON lines where the first line is a JSON object or string."""
    as_json: bool | None = None
    for position, (number, line) in enumerate(lines):
        if as_json is None:
            as_json = _is_json(line)
        value = parsed_json(path, number, line) if as_json else line
        yield number, _from_value(path, number, value, position)


def _is_json(line: str) -> bool:
    if line.lstrip()[:1] not in ("{", '"'):
        return False
    try:
        return isinstance(json.loads(line), (dict, str))
    except (ValueError, RecursionError):
        return line.lstrip().startswith("{")


def _from_value(
    path: Path,
    number: int,
    value: Any,
    position: int,
    texts: Sequence[str] = TEXT_FIELDS,
    ids: Sequence[str] = ID_FIELDS,
) -> Document:
    if isinstance(value, str):
        return Document(str(position), value)
    if not isinstance(value, Mapping):
        raise malformed(path, number, f"expected a string or an object with 'text', got {type(value).__name__}")
    try:
        return document_of(value, str(position), texts=texts, ids=ids)
    except ValueError as error:
        raise malformed(path, number, str(error)) from None


def _txt(path: Path) -> _Numbered:
    for position, (number, line) in enumerate(text_lines(path)):
        yield number, Document(str(position), line)


def _jsonl(path: Path, texts: Sequence[str] = TEXT_FIELDS, ids: Sequence[str] = ID_FIELDS) -> _Numbered:
    for position, (number, line) in enumerate(text_lines(path)):
        yield number, _from_value(path, number, parsed_json(path, number, line), position, texts, ids)


def _json(path: Path) -> _Numbered:
    """A JSON array or object, or JSON lines under the wrong name."""
    text = "".join(line for _, line in raw_lines(path))
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        if not text.lstrip().startswith("["):
            yield from _jsonl(path)
            return
    values = parsed_json(path, 1, text)
    for position, value in enumerate(values if isinstance(values, list) else [values]):
        yield position + 1, _from_value(path, position + 1, value, position)


def _tsv(path: Path) -> _Numbered:
    """``text``, ``id<TAB>text`` or ``id<TAB>title<TAB>text``; a header line that names a text column is honoured."""
    header: list[str] | None = None
    for position, (number, line) in enumerate(text_lines(path)):
        cells = line.split("\t")
        if position == 0 and any(cell.strip().lower() in TEXT_FIELDS for cell in cells):
            header = _header(path, number, cells)
        elif header is not None:
            yield number, _from_value(path, number, _row(path, number, header, cells), position - 1)
        elif len(cells) == 1:
            yield number, Document(str(position), cells[0])
        elif len(cells) in (2, 3):
            yield number, Document(cells[0], cells[-1], cells[1] if len(cells) == 3 else "")
        else:
            raise malformed(path, number, f"expected text, id+text or id+title+text by tabs, got {len(cells)} cells")


def _csv(path: Path) -> _Numbered:
    csv.field_size_limit(1 << 30)
    rows = csv.reader(_csv_lines(path), strict=True)  # not strict, an open quote would swallow the rest of the file
    header: list[str] | None = None
    position, number = 0, 1
    while True:
        number = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise malformed(path, number, f"not CSV: {error}") from None
        if cells is None:
            break
        if not cells:
            continue
        if header is None:
            header = _header(path, number, cells)
            continue
        yield number, _from_value(path, number, _row(path, number, header, cells), position)
        position += 1
    if header is None:
        raise malformed(path, 1, "there is no header")


def _csv_lines(path: Path) -> Iterator[str]:
    for _, line in raw_lines(path):
        # a lone carriage return ends a line, too, as in files opened for the csv module
        yield from io.StringIO(line, newline="") if "\r" in line.removesuffix("\r\n") else (line,)


def _header(path: Path, number: int, cells: Sequence[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    try:
        columns_of_documents(names)
        twice = next((name for name in names if name and names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two columns named {twice!r}")
    except ValueError as error:
        raise malformed(path, number, f"the header has {error}") from None
    return names


def _row(path: Path, number: int, header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Cells by name; empty cells beyond the header are harmless, and so is a row without its last, unread columns."""
    lost = [
        *cells[len(header) :],
        *(name for name in header[len(cells) :] if name in (*TEXT_FIELDS, *ID_FIELDS, "title")),
    ]
    if any(cell.strip() for cell in lost):
        hint = " (a cell with a separator in it needs quotes)" if path.name.removesuffix(".gz").endswith(".csv") else ""
        raise malformed(path, number, f"expected {len(header)} cells as in the header, got {len(cells)}{hint}")
    return dict(zip(header, cells, strict=False))


def _parquet(path: Path) -> _Numbered:
    parquet = require("pyarrow.parquet", "parquet")
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # pyarrow's own errors
        raise ValueError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    try:
        fields = columns_of_documents(file.schema_arrow.names)
    except ValueError as error:
        raise ValueError(f"{path}: the table has {error}") from None
    names = {name: field for field, name in fields.items()}
    position = 0
    for batch in file.iter_batches(columns=list(names)):
        for row in batch.to_pylist():
            value = {names[name]: cell for name, cell in row.items()}
            yield position + 1, _from_value(path, position + 1, value, position)
            position += 1
