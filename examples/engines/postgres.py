"""PostgreSQL's full-text search finds candidates, ProRank orders them.

    pip install prorank 'psycopg[binary]'
    python examples/engines/postgres.py "how do vaccines create immunity" postgresql://localhost/mydb

With pgvector the first stage is `ORDER BY embedding <=> %s LIMIT 100`; the rest stays as it is.
"""

import json
import sys
from pathlib import Path

import psycopg

from prorank import Reranker

PASSAGES = Path(__file__).parents[1] / "passages.jsonl"

TABLE = """
CREATE TABLE IF NOT EXISTS passages (
    id TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    words TSVECTOR GENERATED ALWAYS AS (to_tsvector('english', text)) STORED
);
CREATE INDEX IF NOT EXISTS passages_words ON passages USING GIN (words)
"""
# Any of the query's words, as BM25 would have it: plainto_tsquery alone asks for all of them.
CANDIDATES = """
SELECT id, text FROM passages, (SELECT replace(plainto_tsquery('english', %s)::text, '&', '|')::tsquery AS asked) AS q
WHERE words @@ asked ORDER BY ts_rank_cd(words, asked) DESC, id LIMIT 100
"""


def fill(db: psycopg.Connection, passages: list[dict[str, str]]) -> None:
    db.execute(TABLE)
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO passages VALUES (%(_id)s, %(text)s) ON CONFLICT DO NOTHING", passages)


def search(db: psycopg.Connection, reranker: Reranker, query: str, top_k: int = 5) -> list[tuple[str, float]]:
    """(id, margin) of the best of a hundred candidates."""
    found = db.execute(CANDIDATES, [query]).fetchall()
    ranked = reranker.rank(query, [text for _, text in found], top_k=top_k)
    return [(found[one.index][0], one.margin) for one in ranked]


if __name__ == "__main__":
    with psycopg.connect(sys.argv[2]) as db:
        fill(db, [json.loads(line) for line in PASSAGES.open(encoding="utf-8")])
        for passage_id, margin in search(db, Reranker.from_pretrained(), sys.argv[1]):
            print(f"{passage_id:4} {margin:7.3f}")
