"""Rows to score, one at a time, from Parquet files, JSON lines, or a TREC run with its corpus and queries.

A source can be read again and travels to other processes. Errors name the file and the line or row.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from prorank._optional import require
from prorank.data.documents import read_queries, read_trec_lists
from prorank.data.lines import existing, json_lines, malformed
from prorank.data.load import there
from prorank.types import is_absent, label

__all__ = ["COLUMNS", "Lists", "PairsFile", "Row", "Source", "beir_files", "pairs_files"]

COLUMNS = ("query_id", "query", "doc_id", "text")
"""What every row has; ``title`` may come on top and is read before the text."""

_PARQUET = (".parquet", ".pq")
_JSONL = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_BATCH = 4096  # rows of a Parquet file in memory at a time


class Row(NamedTuple):
    """One pair to score."""

    query_id: str
    query: str
    doc_id: str
    text: str
    """With the title, if there is one."""


class Source(Protocol):
    """Where rows come from."""

    def rows(self) -> Iterator[Row]:
        """All of them, in order.

        Raises:
            ValueError: a file is damaged, or a row lacks something; the message says where.
        """
        ...


@dataclass(frozen=True)
class PairsFile:
    """A Parquet or JSON-lines file with a row a pair."""

    path: Path

    @property
    def is_parquet(self) -> bool:
        """By its name."""
        return self.path.name.lower().endswith(_PARQUET)

    def rows(self) -> Iterator[Row]:
        """See :class:`Source`."""
        for number, fields in self._parquet() if self.is_parquet else json_lines(self.path):
            try:
                yield _row(fields)
            except ValueError as error:
                raise malformed(self.path, number, str(error)) from None

    def _parquet(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        parquet = require("pyarrow.parquet", "parquet")
        try:
            file = parquet.ParquetFile(self.path)
        except Exception as error:  # pyarrow's own errors
            raise ValueError(f"{self.path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        with file:
            found = file.schema_arrow.names
            missing = [name for name in COLUMNS if name not in found]
            if missing:
                raise ValueError(f"{self.path}: no column {missing[0]!r} (columns: {', '.join(found)})")
            names = [name for name in (*COLUMNS, "title") if name in found]
            number = 0
            for batch in file.iter_batches(_BATCH, columns=names):
                for cells in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                    number += 1
                    yield number, dict(zip(names, cells, strict=True))


@dataclass(frozen=True)
class Lists:
    """The documents that a TREC run lists for its queries. The run and what it names are in memory while it is read."""

    run: Path
    corpus: Path
    queries: Path

    def rows(self) -> Iterator[Row]:
        """See :class:`Source`."""
        for query_id, query, documents in read_trec_lists(self.run, self.corpus, read_queries(self.queries)):
            for document in documents:
                yield Row(query_id, query, document.doc_id, document.content)


def pairs_files(given: Sequence[str]) -> list[PairsFile]:
    """The files that paths, patterns and folders mean, each once, those of a pattern or folder by name.

    Raises:
        ValueError: there is none, one is neither Parquet nor JSON lines, or one comes twice.
    """
    found: list[Path] = []
    for one in given:
        path = Path(one).expanduser()
        if path.is_dir():
            shown = (p for p in path.iterdir() if not p.name.startswith("."))
            here = sorted(p for p in shown if p.name.lower().endswith((*_PARQUET, *_JSONL)))
        else:
            here = [path] if path.is_file() else sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        if not here:
            raise ValueError(f"input: there is no file {one}")
        found += here
    for path in found:
        if not path.name.lower().endswith((*_PARQUET, *_JSONL)):
            raise ValueError(f"input: {path}: expected .parquet, .jsonl or .jsonl.gz")
    twice = next((path for i, path in enumerate(found) if path.resolve() in {p.resolve() for p in found[:i]}), None)
    if twice is not None:
        raise ValueError(f"input: {twice} comes twice")
    return [PairsFile(path) for path in found]


def beir_files(data: str) -> tuple[Path, Path]:
    """Corpus and queries of a BEIR folder.

    Raises:
        ValueError: it is none.
    """
    folder = there(data)
    corpus, queries = (existing(folder / name) for name in ("corpus.jsonl", "queries.jsonl"))
    if corpus is None or queries is None:
        raise ValueError(f"data: {folder} lacks corpus.jsonl or queries.jsonl (plain or .gz)")
    return corpus, queries


def _row(fields: Mapping[str, Any]) -> Row:
    missing = [name for name in COLUMNS if is_absent(fields.get(name))]
    if missing:
        keys = ", ".join(map(str, fields)) or "none"
        raise ValueError(f"no value under {missing[0]!r} (keys: {keys:.200})")
    for name in ("query", "text"):
        if not isinstance(fields[name], str):
            raise ValueError(f"expected a string under {name!r}, got {type(fields[name]).__name__}")
    title, text = label(fields.get("title"), "title"), fields["text"]
    query_id, doc_id = label(fields["query_id"], "query_id"), label(fields["doc_id"], "doc_id")
    return Row(query_id, fields["query"], doc_id, f"{title} {text}" if title else text)
