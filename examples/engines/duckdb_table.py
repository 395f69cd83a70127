"""A DuckDB table with BM25 over it (bm25s) as the first stage; ProRank's scores are written back as a table.

    pip install prorank duckdb bm25s
    python examples/engines/duckdb_table.py "how do vaccines create immunity"

DuckDB's own full-text extension would do as well where it can be fetched.
"""

import sys
from pathlib import Path

import bm25s
import duckdb

from prorank import Reranker

PASSAGES = Path(__file__).parents[1] / "passages.jsonl"


def fill(db: duckdb.DuckDBPyConnection, file: Path) -> bm25s.BM25:
    """The table ``passages`` of a JSON lines file, and the index of its texts."""
    db.execute("CREATE TABLE passages AS SELECT _id AS id, text FROM read_json_auto(?)", [str(file)])
    texts = [text for (text,) in db.execute("SELECT text FROM passages ORDER BY id").fetchall()]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    return index


def search(
    db: duckdb.DuckDBPyConnection, index: bm25s.BM25, reranker: Reranker, query: str, top_k: int = 5
) -> list[tuple[str, float]]:
    """(id, margin) of the best of a hundred candidates; all scores stand in the table ``scored`` then."""
    rows = db.execute("SELECT id, text FROM passages ORDER BY id").fetchall()
    words = bm25s.tokenize(query, stopwords="en", show_progress=False)
    places, scores = index.retrieve(words, k=min(100, len(rows)), show_progress=False)
    found = [rows[place] for place, score in zip(places[0], scores[0], strict=True) if score > 0]
    ranked = reranker.rank(query, [text for _, text in found])
    db.execute("CREATE TABLE IF NOT EXISTS scored (query TEXT, id TEXT, margin FLOAT)")
    if ranked:
        db.executemany("INSERT INTO scored VALUES (?, ?, ?)", [[query, found[r.index][0], r.margin] for r in ranked])
    best = "SELECT id, margin FROM scored WHERE query = ? ORDER BY margin DESC LIMIT ?"
    return db.execute(best, [query, top_k]).fetchall()


if __name__ == "__main__":
    db = duckdb.connect(sys.argv[2] if len(sys.argv) > 2 else ":memory:")
    index = fill(db, PASSAGES)
    for passage_id, margin in search(db, index, Reranker.from_pretrained(), sys.argv[1]):
        print(f"{passage_id:4} {margin:7.3f}")
