"""A job's rows in parts, which are written and resumed as a whole, and in tasks, which a worker scores at a time.

Where a part begins depends on the rows and ``part_rows`` alone, so that a job that goes on finds the same parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.batch.rows import Row, Source
from prorank.data.trec import trec_id
from prorank.scoring import Margins

__all__ = ["Assembly", "Plan", "Reading", "ScoredPart", "Scores", "Task", "planned"]

TASK_ROWS = 256
"""Rows that a worker gets at a time, whole queries where they fit."""


class Scores(NamedTuple):
    """What a model says of some pairs, in their order."""

    margins: Margins
    """``(n,)`` float32."""
    probabilities: npt.NDArray[np.float64]
    """``(n,)``, for people."""


class Task(NamedTuple):
    """Some rows of one part."""

    part: str
    size: int
    """Rows of the whole part."""
    places: list[int]
    """Where in the part each row stands, from 0."""
    rows: list[Row]


class ScoredPart(NamedTuple):
    """A whole part, in the order of the input."""

    name: str
    query_ids: list[str]
    doc_ids: list[str]
    scores: Scores


class Plan(NamedTuple):
    """What a first reading of the whole input finds."""

    sha256: str
    """Over all rows in order."""
    rows: int
    parts: list[list[str]]
    """Per source the names of its parts."""


@dataclass(frozen=True)
class Reading:
    """The parts of a job that are not done yet; it travels to other processes."""

    sources: Sequence[Source]
    part_rows: int
    todo: Sequence[Collection[str]]
    """Per source the names of the parts to read."""

    def tasks(self, number: int) -> Iterator[Task]:
        """The tasks of one source; it is not opened where none of its parts is to be read."""
        if not self.todo[number]:
            return
        for name, rows in _parts(self.sources[number], number, self.part_rows):
            if name in self.todo[number]:
                yield from _tasks(name, rows)

    def all_tasks(self) -> Iterator[Task]:
        """Those of all sources."""
        for number in range(len(self.sources)):
            yield from self.tasks(number)


class Assembly:
    """Scored tasks, in any order, joined to parts."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[list[str], list[str], Scores, list[int]]] = {}

    def add(self, task: Task, scores: Scores) -> ScoredPart | None:
        """The task's part, where this was its last task. Of the rows only the ids are looked at."""
        if task.part not in self._open:
            empty = Scores(np.zeros(task.size, np.float32), np.zeros(task.size))
            self._open[task.part] = [""] * task.size, [""] * task.size, empty, [task.size]
        query_ids, doc_ids, all_scores, left = self._open[task.part]
        for place, row in zip(task.places, task.rows, strict=True):
            query_ids[place], doc_ids[place] = row.query_id, row.doc_id
        all_scores.margins[task.places] = scores.margins
        all_scores.probabilities[task.places] = scores.probabilities
        left[0] -= len(task.places)
        if left[0]:
            return None
        del self._open[task.part]
        return ScoredPart(task.part, query_ids, doc_ids, all_scores)


def planned(
    sources: Sequence[Source], part_rows: int, *, for_trec: bool = False, on_rows: Callable[[int], None] | None = None
) -> Plan:
    """Read everything once: what is wrong in it is told before anything is scored.

    Args:
        for_trec: refuse ids that TREC files cannot carry, and documents that come twice for a query in one part.
        on_rows: called with how many rows more were read.

    Raises:
        ValueError: a row cannot be read, or there is none at all.
    """
    digest, total, parts = hashlib.sha256(), 0, []
    for number, source in enumerate(sources):
        names = []
        for name, rows in _parts(source, number, part_rows):
            if for_trec:
                _check_for_trec(rows)
            for row in rows:
                _add(digest, row)
            names.append(name)
            total += len(rows)
            if on_rows is not None:
                on_rows(len(rows))
        parts.append(names)
    if not total:
        raise ValueError("input: there is no row in it")
    return Plan(digest.hexdigest(), total, parts)


def _parts(source: Source, number: int, part_rows: int) -> Iterator[tuple[str, list[Row]]]:
    for place, rows in enumerate(_cut(source.rows(), part_rows)):
        yield f"part-{number:05}-{place:05}", rows


def _cut(rows: Iterable[Row], part_rows: int) -> Iterator[list[Row]]:
    """Parts of ``part_rows`` rows and the rest of the query that the last one is of, at most twice as many."""
    part: list[Row] = []
    for row in rows:
        size = len(part)
        if size >= 2 * part_rows or (size >= part_rows and row.query_id != part[-1].query_id):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _tasks(name: str, rows: Sequence[Row]) -> Iterator[Task]:
    by_query: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        by_query.setdefault((row.query_id, row.query), []).append(place)
    places: list[int] = []
    for of_query in by_query.values():
        if places and len(places) + len(of_query) > TASK_ROWS:
            yield Task(name, len(rows), places, [rows[i] for i in places])
            places = []
        for start in range(0, len(of_query), TASK_ROWS):
            places = places + of_query[start : start + TASK_ROWS]
            if len(places) >= TASK_ROWS:
                yield Task(name, len(rows), places, [rows[i] for i in places])
                places = []
    if places:
        yield Task(name, len(rows), places, [rows[i] for i in places])


def _check_for_trec(rows: Sequence[Row]) -> None:
    seen: set[tuple[str, str]] = set()
    for row in rows:
        pair = trec_id(row.query_id), trec_id(row.doc_id)
        if pair in seen:
            raise ValueError(
                f"input: document {row.doc_id!r} comes twice for query {row.query_id!r}, which no TREC run may hold"
            )
        seen.add(pair)


def _add(digest: hashlib._Hash, row: Row) -> None:
    cells = [cell.encode("utf-8", "surrogatepass") for cell in row]
    digest.update(b"%d %d %d %d " % tuple(map(len, cells)) + b"".join(cells))
