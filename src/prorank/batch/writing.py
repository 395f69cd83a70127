"""Parts of a job on disk: Parquet, JSON lines or TREC, each written aside and renamed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from prorank._optional import require
from prorank.batch.parts import ScoredPart
from prorank.data.trec import run_lines
from prorank.files import atomic_file
from prorank.scoring import rank_order

__all__ = ["ENDINGS", "Form", "clear_leftovers", "kept_on_failure", "write_part"]

Form = Literal["parquet", "jsonl", "trec"]
ENDINGS: dict[Form, str] = {"parquet": ".parquet", "jsonl": ".jsonl", "trec": ".trec"}


def write_part(folder: Path, part: ScoredPart, form: Form, tag: str) -> Path:
    """Write a part; who looks sees a whole file or none.

    Args:
        tag: the run's name in TREC files.

    Returns:
        the file: ``query_id``, ``doc_id``, ``margin`` (float32) and ``probability`` in the order of the input; in TREC
        by query, best first.
    """
    path = folder / f"{part.name}{ENDINGS[form]}"
    with atomic_file(path) as aside:
        if form == "parquet":
            _write_parquet(aside, part)
        else:
            lines = _jsonl(part) if form == "jsonl" else _trec(part, tag)
            with aside.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{line}\n" for line in lines)
    return path


def clear_leftovers(folder: Path) -> None:
    """Delete what writers that were killed have left half written."""
    for path in folder.glob(".part-*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def kept_on_failure(folder: Path) -> Iterator[None]:
    """Says of an error of the file system, such as a full disk, that the job can go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"out: {folder} cannot be written ({reason}); the parts that are finished stay: make room, and run the "
            "same command again"
        ) from error


def _write_parquet(path: Path, part: ScoredPart) -> None:
    arrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    columns = {
        "query_id": arrow.array(part.query_ids, arrow.string()),
        "doc_id": arrow.array(part.doc_ids, arrow.string()),
        "margin": arrow.array(part.scores.margins, arrow.float32()),
        "probability": arrow.array(part.scores.probabilities, arrow.float64()),
    }
    parquet.write_table(arrow.table(columns), path)


def _jsonl(part: ScoredPart) -> Iterator[str]:
    rows = zip(part.query_ids, part.doc_ids, *part.scores, strict=True)
    for query_id, doc_id, margin, probability in rows:
        row = {"query_id": query_id, "doc_id": doc_id, "margin": float(margin), "probability": float(probability)}
        yield json.dumps(row, ensure_ascii=False)


def _trec(part: ScoredPart, tag: str) -> Iterator[str]:
    by_query: dict[str, list[int]] = {}
    for place, query_id in enumerate(part.query_ids):
        by_query.setdefault(query_id, []).append(place)
    margins = part.scores.margins
    for query_id, places in by_query.items():
        ordered = [places[i] for i in rank_order(margins[places])]
        yield from run_lines(query_id, ((part.doc_ids[i], float(margins[i])) for i in ordered), tag)
