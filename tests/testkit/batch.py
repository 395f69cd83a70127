"""What tests of batch scoring share: an engine without a model, rows, and what a folder of parts holds."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prorank.batch.job import ScoreRun
from prorank.batch.parts import Reading, Scores, Task
from prorank.batch.scorer import Facts
from prorank.model.options import LoadOptions

DIES_AFTER: list[int] = []
"""Tasks after which the engine raises; empty: never."""
SCORED: list[Task] = []
"""What was scored since a test cleared it."""


def check(run: ScoreRun, options: LoadOptions) -> None:
    """Nothing can be wrong."""


class HashEngine:
    """Margins are a hash of query and text; tasks come back the last first, within windows of three."""

    def __init__(self, _: ScoreRun, options: LoadOptions) -> None:
        name = str(options.model or "hash")
        self.facts = Facts(name, "hash", f"fingerprint of {name}")

    def scored(self, reading: Reading) -> Iterator[tuple[Task, Scores]]:
        window: list[Task] = []
        for task in reading.all_tasks():
            window.append(task)
            if len(window) == 3:
                yield from map(self._one, reversed(window))
                window = []
        yield from map(self._one, reversed(window))

    def _one(self, task: Task) -> tuple[Task, Scores]:
        if DIES_AFTER and len(SCORED) >= DIES_AFTER[0]:
            raise RuntimeError("the engine broke")
        SCORED.append(task)
        margins = np.array([margin(row.query, row.text) for row in task.rows], dtype=np.float32)
        return task, Scores(margins, 1 / (1 + np.exp(-margins.astype(np.float64))))

    def close(self) -> None:
        pass


def margin(query: str, text: str) -> float:
    """What the hash engine gives."""
    return zlib.crc32(f"{query}\0{text}".encode()) / 2**30 - 2


def rows(queries: int, documents: int) -> list[dict[str, str]]:
    """Rows of so many queries with so many documents each."""
    return [
        {"query_id": f"q{q}", "query": f"query {q}", "doc_id": f"d{q}-{d}", "text": f"passage {d} of {q}"}
        for q in range(queries)
        for d in range(documents)
    ]


def write_jsonl(path: Path, lines: list[dict[str, str]]) -> Path:
    """As JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def margins_in(folder: Path) -> list[tuple[str, str, float]]:
    """(query_id, doc_id, margin) of all JSON-lines parts, in order."""
    lines = [line for path in sorted(folder.glob("part-*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    return [(row["query_id"], row["doc_id"], row["margin"]) for row in map(json.loads, lines)]
