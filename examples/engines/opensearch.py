"""OpenSearch finds candidates over HTTP, ProRank orders them, and the scores are written back to an index.

    pip install prorank opensearch-py
    python examples/engines/opensearch.py "how do vaccines create immunity" http://localhost:9200

Elasticsearch takes the same two requests (`_search` with a match query, `_bulk`) through its own client.
"""

import json
import sys
from pathlib import Path

from opensearchpy import OpenSearch, helpers

from prorank import Reranker

PASSAGES = Path(__file__).parents[1] / "passages.jsonl"
INDEX, SCORED = "passages", "passages-scored"


def fill(client: OpenSearch, passages: list[dict[str, str]]) -> None:
    actions = [{"_index": INDEX, "_id": p["_id"], "_source": {"text": p["text"]}} for p in passages]
    helpers.bulk(client, actions, refresh="wait_for")


def search(client: OpenSearch, reranker: Reranker, query: str, top_k: int = 5) -> list[tuple[str, float]]:
    """(id, margin) of the best of a hundred candidates; all scores are written to ``passages-scored``."""
    body = {"query": {"match": {"text": query}}, "size": 100, "_source": ["text"]}
    found = client.search(index=INDEX, body=body)["hits"]["hits"]
    ranked = reranker.rank(query, [hit["_source"]["text"] for hit in found])
    scored = [(found[one.index]["_id"], one.margin) for one in ranked]
    rows = [{"_index": SCORED, "_source": {"query": query, "id": i, "margin": margin}} for i, margin in scored]
    helpers.bulk(client, rows)
    return scored[:top_k]


if __name__ == "__main__":
    client = OpenSearch(sys.argv[2])
    fill(client, [json.loads(line) for line in PASSAGES.open(encoding="utf-8")])
    for passage_id, margin in search(client, Reranker.from_pretrained(), sys.argv[1]):
        print(f"{passage_id:4} {margin:7.3f}")
