"""Margins of the same candidates before training, after warmup and after refine, for the picture of distributions.

    python -m benchmarks.runs.distributions --append benchmarks/results/distributions.jsonl

Of --queries queries, up to --candidates / 2 relevant and as many other candidates of the first stage. The rerankers run
on our own engine, the bare base in PyTorch. Prints the medians, and one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.runs.collections import DATA
from benchmarks.runs.results import COLLECTIONS, MODELS

FIRST_STAGE_TOP_K = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", choices=list(COLLECTIONS), default="nfcorpus", help="(default: %(default)s)")
    parser.add_argument("--queries", type=int, default=24, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--candidates", type=int, default=12, metavar="N", help="of each query (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the collections")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the record to this file")
    args = parser.parse_args()
    from prorank.evaluate.record import append_record, make_record
    from prorank.reranker import Reranker

    dataset, asked = sample(args)
    stages: dict[str, Any] = {}
    for stage, name in MODELS.items():
        print(f"scoring: {stage}", file=sys.stderr, flush=True)
        model = Reranker.from_pretrained(name, backend="torch" if stage == "base" else "native", threads=args.threads)
        margins: dict[str, list[float]] = {"relevant": [], "other": []}
        for query, groups in asked:
            for kind, texts in groups.items():
                margins[kind] += [round(float(m), 2) for m in model.score([(query, text) for text in texts])]
        stages[stage] = {"fingerprint": model.fingerprint, "margins": margins}
        print(f"{stage}: " + ", ".join(f"{kind} {statistics.median(found):+.2f}" for kind, found in margins.items()))
    payload = {"dataset": dataset, "first_stage_top_k": FIRST_STAGE_TOP_K, "candidates": args.candidates,
               "stages": stages}  # fmt: skip
    record = append_record(args.append, "distributions", payload) if args.append else make_record("d", payload)
    print(json.dumps({"benchmark": "distributions", "dataset": record["dataset"]}))
    return 0


def sample(args: argparse.Namespace) -> tuple[dict[str, Any], list[tuple[str, dict[str, list[str]]]]]:
    """What it is of; (query, kind -> texts) of queries that have candidates of both kinds."""
    from prorank.data import first_stage, load_collection

    split, spec, least = COLLECTIONS[args.collection]
    collection = load_collection(args.data / args.collection, split)
    lists = first_stage(spec, collection, FIRST_STAGE_TOP_K)
    rng, found = random.Random(0), []
    for query_id in rng.sample(sorted(lists), len(lists)):
        judged = collection.qrels.get(query_id, {})
        kinds: dict[str, list[str]] = {"relevant": [], "other": []}
        for doc_id in rng.sample(sorted(lists[query_id]), len(lists[query_id])):
            kind = kinds["relevant" if judged.get(doc_id, 0) >= (least or 1) else "other"]
            if len(kind) < args.candidates // 2:
                kind.append(collection.documents[doc_id].content)
        if all(kinds.values()):
            found.append((collection.queries[query_id].text, kinds))
        if len(found) == args.queries:
            break
    return {"name": collection.name, "split": collection.split, "queries": len(found)}, found


if __name__ == "__main__":
    raise SystemExit(main())
