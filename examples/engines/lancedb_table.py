"""LanceDB's own full-text index finds candidates, ProRank orders them, as one of LanceDB's rerankers.

pip install prorank lancedb
python examples/engines/lancedb_table.py "how do vaccines create immunity"
"""

import json
import sys
import tempfile
from pathlib import Path

import lancedb
import pyarrow as pa
from lancedb.index import FTS
from lancedb.rerankers import Reranker as LanceReranker

from prorank import Reranker

PASSAGES = Path(__file__).parents[1] / "passages.jsonl"


class ProRankReranker(LanceReranker):
    """What ``table.search(...).rerank(...)`` takes."""

    def __init__(self, reranker: Reranker) -> None:
        super().__init__("relevance")
        self.reranker = reranker

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        return self._ordered(query, fts_results)

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        return self._ordered(query, vector_results)

    def rerank_hybrid(self, query: str, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        return self._ordered(query, self.merge_results(vector_results, fts_results))

    def _ordered(self, query: str, found: pa.Table) -> pa.Table:
        ranked = self.reranker.rank(query, found["text"].to_pylist())
        kept = found.take([one.index for one in ranked]).drop_columns(
            [name for name in found.column_names if name.startswith("_") and name not in ("_rowid",)]
        )
        return kept.append_column("_relevance_score", pa.array([one.margin for one in ranked], pa.float32()))


def fill(folder: str, passages: list[dict[str, str]]) -> lancedb.table.Table:
    rows = [{"id": passage["_id"], "text": passage["text"]} for passage in passages]
    table = lancedb.connect(folder).create_table("passages", rows)
    table.create_index("text", config=FTS())
    return table


def search(table: lancedb.table.Table, reranker: Reranker, query: str, top_k: int = 5) -> list[tuple[str, float]]:
    """(id, margin) of the best of a hundred candidates."""
    found = table.search(query, query_type="fts").rerank(ProRankReranker(reranker)).limit(100).to_list()
    return [(row["id"], row["_relevance_score"]) for row in found[:top_k]]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        table = fill(folder, [json.loads(line) for line in PASSAGES.open(encoding="utf-8")])
        for passage_id, margin in search(table, Reranker.from_pretrained(), sys.argv[1]):
            print(f"{passage_id:4} {margin:7.3f}")
