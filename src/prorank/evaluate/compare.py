"""Paired tests between finished evaluations, read from their folders; nothing is scored anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prorank.data.lines import malformed, text_lines
from prorank.evaluate.results import Tested
from prorank.evaluate.significance import Interval, bootstrap_interval, compare_paired, holm

__all__ = ["Compared", "Finished", "compare", "read_finished"]


class Finished(NamedTuple):
    """One system of one evaluation folder."""

    label: str
    """``folder:system`` where several folders are compared."""
    dataset: str
    """Name, split, and the judgments' hash: only equal ones are comparable."""
    values: Mapping[str, Mapping[str, float]]
    """measure -> query_id -> value."""


class Compared(NamedTuple):
    """A pair of systems: ``a`` minus ``b``."""

    a: str
    b: str
    tested: Tested
    mean_a: Interval
    mean_b: Interval


def read_finished(folder: Path, *, prefix: str = "") -> list[Finished]:
    """The systems of an evaluation folder.

    Raises:
        ValueError: the folder holds no finished evaluation, or a file is damaged.
    """
    record_file, table = folder / "record.jsonl", folder / "per-query.tsv"
    if not record_file.is_file() or not table.is_file():
        raise ValueError(f"{folder} holds no finished evaluation (record.jsonl and per-query.tsv)")
    try:
        dataset = json.loads(record_file.read_text("utf-8").splitlines()[0])["dataset"]
        identity = f"{dataset['name']} {dataset['split'] or ''} ({dataset['qrels_sha256'][:12]})"
        if dataset.get("own_documents_left_out"):  # a list that may hold them cannot be compared with one that may not
            identity += " without the queries' own documents"
    except (ValueError, KeyError, IndexError) as error:
        raise malformed(record_file, 1, f"not the record of an evaluation ({error!r})") from None
    lines = text_lines(table)
    _, header = next(lines, (1, ""))
    columns = header.split("\t")
    if columns[:2] != ["system", "query_id"] or columns[-3:] != ["candidates", "ties", "seconds"]:
        raise malformed(table, 1, "expected the columns system, query_id, measures, candidates, ties, seconds")
    measures = columns[2:-3]
    systems: dict[str, dict[str, dict[str, float]]] = {}
    for number, line in lines:
        cells = line.split("\t")
        try:
            values = [float(cell) for cell in cells[2 : 2 + len(measures)]]
        except ValueError:
            values = []
        if len(cells) != len(columns) or len(values) != len(measures):
            raise malformed(table, number, f"expected {len(columns)} cells with numbers as measures")
        found = systems.setdefault(cells[0], {name: {} for name in measures})
        for name, value in zip(measures, values, strict=True):
            found[name][cells[1]] = value
    return [Finished(f"{prefix}{name}", identity, values) for name, values in systems.items()]


def compare(
    systems: Sequence[Finished], measure: str, *, against: str | None = None, level: float = 0.95
) -> list[Compared]:
    """Paired tests of every pair, or of every system with ``against``; p-values are Holm-corrected over all of them.

    Raises:
        ValueError: the systems were measured on different judgments or queries, ``measure`` is missing somewhere, or
            ``against`` names no system.
    """
    if len(systems) < 2:
        raise ValueError("compare needs at least two systems")
    for system in systems:
        if system.dataset != systems[0].dataset:
            other = systems[0]
            raise ValueError(f"{system.label} was measured on {system.dataset}, {other.label} on {other.dataset}")
        if measure not in system.values:
            raise ValueError(f"measure: {system.label} has {', '.join(system.values)}, not {measure!r}")
        if set(system.values[measure]) != set(systems[0].values[measure]):
            raise ValueError(f"{system.label} and {systems[0].label} were measured on different queries")
    labels = [system.label for system in systems]
    if against is not None:
        if labels.count(against) != 1:
            raise ValueError(f"against: {against!r} is not one of {', '.join(labels)}")
        base = systems[labels.index(against)]
        pairs = [(system, base) for system in systems if system is not base]
    else:
        pairs = [(later, earlier) for i, earlier in enumerate(systems) for later in systems[i + 1 :]]
    queries = list(systems[0].values[measure])
    found = []
    for a, b in pairs:
        left, right = ([system.values[measure][q] for q in queries] for system in (a, b))
        mean_a, mean_b = (bootstrap_interval(values, level=level) for values in (left, right))
        found.append((a.label, b.label, compare_paired(left, right, level=level), mean_a, mean_b))
    corrected = holm([comparison.p for _, _, comparison, _, _ in found])
    return [
        Compared(a, b, Tested(comparison, p), mean_a, mean_b)
        for (a, b, comparison, mean_a, mean_b), p in zip(found, corrected, strict=True)
    ]
