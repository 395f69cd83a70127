"""Run by test_evaluate_run as a process of its own, to be killed: a slow system over 40 queries."""

from __future__ import annotations

import sys
import time
import zlib
from pathlib import Path

import numpy as np

from prorank.data.collection import Collection
from prorank.evaluate.run import run_system
from prorank.evaluate.systems import Scored
from prorank.types import Document, Query


class Slow:
    """Scores by a hash, after a pause."""

    name = "slow"

    def describe(self):
        return {"kind": "slow"}

    def score(self, query, documents):
        time.sleep(0.01)
        hashes = [zlib.crc32(f"{query} {document}".encode()) for document in documents]
        return Scored(np.array(hashes, dtype=np.float32) / 7, 0)


if __name__ == "__main__":
    documents = {f"d{i}": Document(f"d{i}", f"text {i}") for i in range(30)}
    queries = {f"q{i}": Query(f"q{i}", f"query {i}") for i in range(40)}
    collection = Collection("slow", documents, queries, {q: {"d1": 1} for q in queries})
    run_system(Slow(), collection, {q: dict.fromkeys(documents, 0.0) for q in queries}, Path(sys.argv[1]))
