"""Pairs a second of batch scoring: one process, local processes, and Ray, over the same pairs, with equal scores.

    python -m benchmarks.runs.batch_scoring --queries 1000 --append benchmarks/results/batch_scoring.jsonl
    python -m benchmarks.runs.batch_scoring --queries 2 --top-k 10      # does it run?

The pairs are BM25's best passages of MS MARCO queries. ``one process`` is :meth:`prorank.Reranker.score` with all
cores, 256 pairs at a time; the others are whole jobs of ``prorank.batch``: their rate counts from the loaded model to
the last part on disk. Memory is the largest resident size of the process and of any worker, by the system's account.
Ray is left out, and said to be, where it is not installed. Prints one JSON line last.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.runs.collections import DATA
from benchmarks.runs.turns import ended

BLOCK = 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=DATA / "msmarco-sample", help="a BEIR folder (default: %(default)s)"
    )
    parser.add_argument("--split", help="which judgments (default: the only ones)")
    parser.add_argument("--queries", type=int, default=1000, help="queries (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=100, help="BM25's candidates a query (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=2, help="local processes and Ray actors (default: %(default)s)"
    )
    parser.add_argument("--model", help="default: the built-in reranker")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the record to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prorank-batch-") as scratch:
        result = measured(args, Path(scratch))
    for name, row in result["sides"].items():
        print(f"{name:<16}{row['pairs_per_second']:>9.2f} pairs/s{row['share_of_one_process']:>8.0%} of one process")
    return ended(result, args.append)


def measured(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from prorank.batch.job import ScoreRun, score_pairs
    from prorank.model.options import LoadOptions

    pairs = write_pairs(args, scratch / "pairs.jsonl")
    rows = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    one_margins, seconds = one_process(args.model, rows)
    sides: dict[str, dict[str, Any]] = {"one process": side(len(rows), seconds)}
    left_out: dict[str, str] = {}
    for engine in ("local", "ray"):
        if engine == "ray" and importlib.util.find_spec("ray") is None:
            left_out["ray"] = "not installed"
            continue
        several: dict[str, Any] = {"processes": args.processes} if engine == "local" else {"threads": 1}
        where = {"concurrency": args.processes} if engine == "ray" else {}
        out = scratch / engine
        run = ScoreRun(out=str(out), input=[str(pairs)], engine=engine, **where)
        done = score_pairs(run, LoadOptions(args.model, **several))
        sides[f"{engine}, {args.processes}"] = side(len(rows), done.seconds)
        same = margins_of(out) == one_margins
        sides[f"{engine}, {args.processes}"]["same_scores"] = same
        assert same, f"{engine}: other scores than one process"
    base = sides["one process"]["pairs_per_second"]
    for row in sides.values():
        row["share_of_one_process"] = round(row["pairs_per_second"] / base, 4)
    settings = {"data": args.data.name, "queries": args.queries, "top_k": args.top_k, "processes": args.processes,
                "model": args.model}  # fmt: skip
    verdict = {f"{name}: 90 % of one process": row["share_of_one_process"] >= 0.9 for name, row in sides.items()}
    return {"benchmark": "batch_scoring", "settings": settings, "pairs": len(rows), "sides": sides,
            "left_out": left_out, "verdict": verdict}  # fmt: skip


def write_pairs(args: argparse.Namespace, path: Path) -> Path:
    from prorank.data.first_stage import first_stage
    from prorank.data.load import load_collection

    collection = load_collection(args.data, args.split)
    run = first_stage("bm25", collection, args.top_k)
    with path.open("w", encoding="utf-8") as file:
        for query_id in list(run)[: args.queries]:
            for doc_id in run[query_id]:
                row = {"query_id": query_id, "query": collection.queries[query_id].text, "doc_id": doc_id,
                       "text": collection.documents[doc_id].content}  # fmt: skip
                file.write(json.dumps(row) + "\n")
    return path


def one_process(model: str | None, rows: list[dict[str, str]]) -> tuple[list[float], float]:
    """Margins and seconds, loading left out."""
    from prorank import Reranker

    reranker = Reranker.from_pretrained(model)
    pairs = [(row["query"], row["text"]) for row in rows]
    reranker.score(pairs[:1])
    started, margins = time.perf_counter(), []
    for start in range(0, len(pairs), BLOCK):
        margins += [float(margin) for margin in reranker.score(pairs[start : start + BLOCK])]
    return margins, time.perf_counter() - started


def margins_of(folder: Path) -> list[float]:
    parts = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line)["margin"] for part in parts for line in part.read_text("utf-8").splitlines()]


def side(pairs: int, seconds: float) -> dict[str, Any]:
    peaks = {"process": resource.RUSAGE_SELF, "largest_worker": resource.RUSAGE_CHILDREN}
    memory = {name: round(resource.getrusage(who).ru_maxrss / 1024, 1) for name, who in peaks.items()}
    return {"pairs_per_second": round(pairs / seconds, 3), "seconds": round(seconds, 2), "peak_mib": memory}


if __name__ == "__main__":
    sys.exit(main())
