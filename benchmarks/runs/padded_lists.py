"""BM25 lists filled up to N documents with documents of score 0, as some published lists are: a TREC run.

Which documents of score 0 come in is decided as bm25s's own ``retrieve`` does. MiniLM's reference values were measured
on such lists (docs/evaluation.md):

    python -m benchmarks.runs.padded_lists --data nfcorpus --split test --out padded.trec
    prorank evaluate --data nfcorpus --split test --run padded.trec --baseline bi-encoder
"""

from __future__ import annotations

import argparse

import numpy as np

from prorank.data import load_collection, write_run
from prorank.data.bm25 import bm25_run
from prorank.data.collection import Collection
from prorank.types import Run


def padded_lists(collection: Collection, top_k: int = 100) -> Run:
    """BM25's lists, each of ``top_k`` documents where the collection has so many."""
    doc_ids = list(collection.documents)
    places = {doc_id: place for place, doc_id in enumerate(doc_ids)}
    count = min(top_k + bool(collection.own_documents), len(doc_ids))
    run = {}
    for query_id, found in bm25_run(collection, max(len(doc_ids), 1)).items():
        scores = np.zeros(len(doc_ids), dtype=np.float32)
        scores[[places[doc_id] for doc_id in found]] = list(found.values())
        listed = dict(list(found.items())[:count])
        if len(listed) < count:
            for i in np.argpartition(scores, -count)[-count:]:
                listed.setdefault(doc_ids[i], 0.0)
        run[query_id] = listed
    return collection.without_own(run, top_k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as prorank evaluate takes it")
    parser.add_argument("--split", help="which judgments")
    parser.add_argument("--top-k", type=int, default=100, help="documents a list (default: 100)")
    parser.add_argument("--out", required=True, help="the TREC run to write")
    given = parser.parse_args()
    write_run(given.out, padded_lists(load_collection(given.data, given.split), given.top_k))


if __name__ == "__main__":
    main()
