"""Run a prorank checkpoint in mteb: the folder loads as a sentence-transformers CrossEncoder, without code of ours.

    pip install mteb
    python examples/mteb_task.py                                # the built-in reranker, 10 queries x 10 candidates
    python examples/mteb_task.py --model runs/refined --queries 50 --top-k 100

The task is a small one of our own: the built-in collection of Python's standard library with BM25's candidates. prorank
scores the same candidates. The script prints nDCG@10 of both and exits with code 1 if they differ.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from sentence_transformers import CrossEncoder

from prorank import Reranker
from prorank.data import Collection, first_stage, load_collection
from prorank.evaluate.metrics import measure, ranked
from prorank.types import Run


def make_task(collection: Collection, candidates: Run) -> AbsTaskRetrieval:
    """The collection and its candidates as an mteb reranking task; documents are title and text on two lines."""

    class StandardLibraryReranking(AbsTaskRetrieval):
        metadata = TaskMetadata(
            dataset={"path": "stdlib", "revision": collection.documents_hash},
            name="StandardLibraryReranking",
            description="First sentences of docstrings to the functions they describe.",
            type="Reranking",
            category="t2t",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_: Any) -> None:
            documents = [{"id": d.doc_id, "text": d.content} for d in collection.documents.values()]
            queries = [{"id": q.query_id, "text": q.text} for q in collection.queries.values()]
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list(documents),
                        "queries": Dataset.from_list(queries),
                        "relevant_docs": {q: dict(judged) for q, judged in collection.qrels.items()},
                        "top_ranked": {q: list(found) for q, found in candidates.items()},
                    }
                }
            }
            self.data_loaded = True

    return StandardLibraryReranking()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a prorank checkpoint (default: the built-in reranker)")
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--top-k", type=int, default=10, help="BM25 candidates per query")
    args = parser.parse_args()

    whole = load_collection("stdlib", "test")
    found = first_stage("bm25", whole, args.top_k)
    kept = [query_id for query_id, documents in found.items() if len(documents) >= 2][: args.queries]
    candidates = {query_id: found[query_id] for query_id in kept}
    collection = Collection(
        whole.name, whole.documents, {q: whole.queries[q] for q in kept}, {q: whole.qrels[q] for q in kept}, "test"
    )
    reranker = Reranker.from_pretrained(args.model, dtype="float32")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(args.model or "")
        if not (folder / "modules.json").is_file():  # an adapter, or a built-in model: write the merged weights
            folder = reranker.save(Path(scratch) / "merged")
        model = CrossEncoder(str(folder))
        result = mteb.evaluate(model, make_task(collection, candidates), cache=None, co2_tracker=False)
    theirs = result.task_results[0].get_score()

    run = {}
    for query_id, listed in candidates.items():
        texts = [collection.documents[doc_id].content for doc_id in listed]
        run[query_id] = ranked(list(listed), reranker.margins(collection.queries[query_id].text, texts))
    ours = measure(run, collection.qrels, ["nDCG@10"]).mean("nDCG@10")
    first = measure(candidates, collection.qrels, ["nDCG@10"]).mean("nDCG@10")
    print(f"{len(kept)} queries, nDCG@10: BM25 {first:.4f}, mteb {theirs:.4f}, prorank {ours:.4f}")
    return int(abs(ours - theirs) > 1e-4)


if __name__ == "__main__":
    raise SystemExit(main())
