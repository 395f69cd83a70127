"""Qdrant finds candidates, ProRank orders them. Qdrant runs inside this process; give a URL for your own server.

    pip install prorank qdrant-client
    python examples/engines/qdrant.py "how do vaccines create immunity"

The first stage is sparse: word counts, weighted by rarity inside Qdrant. Your dense vectors serve as well.
"""

import json
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

from qdrant_client import QdrantClient, models

from prorank import Reranker

PASSAGES = Path(__file__).parents[1] / "passages.jsonl"
NAME = "passages"


def vector(text: str) -> models.SparseVector:
    """Words as places of a sparse vector, by their hash."""
    counts = Counter(zlib.crc32(word.encode()) for word in re.findall(r"\w+", text.lower()))
    return models.SparseVector(indices=list(counts), values=[float(count) for count in counts.values()])


def fill(client: QdrantClient, passages: list[dict[str, str]]) -> None:
    weights = models.SparseVectorParams(modifier=models.Modifier.IDF)
    client.create_collection(NAME, vectors_config={}, sparse_vectors_config={"words": weights})
    points = [models.PointStruct(id=i, vector={"words": vector(p["text"])}, payload=p) for i, p in enumerate(passages)]
    client.upsert(NAME, points)


def search(client: QdrantClient, reranker: Reranker, query: str, top_k: int = 5) -> list[tuple[str, float]]:
    """(id, margin) of the best of a hundred candidates."""
    found = client.query_points(NAME, query=vector(query), using="words", limit=100).points
    ranked = reranker.rank(query, [point.payload["text"] for point in found], top_k=top_k)
    return [(found[one.index].payload["_id"], one.margin) for one in ranked]


if __name__ == "__main__":
    client = QdrantClient(url=sys.argv[2]) if len(sys.argv) > 2 else QdrantClient(":memory:")
    fill(client, [json.loads(line) for line in PASSAGES.open(encoding="utf-8")])
    for passage_id, margin in search(client, Reranker.from_pretrained(), sys.argv[1]):
        print(f"{passage_id:4} {margin:7.3f}")
