"""What faster ways of scoring do to the order: lower precision and early exits beside the built-in reranker in float32.

    python -m benchmarks.runs.order_kept --append benchmarks/results/order_kept.jsonl
    python -m benchmarks.runs.order_kept --queries 1 --top-k 20 --collections dl19                # does it run?

--queries of each collection, BM25's top 100 each, in the reranker's own settings: excerpts, 192 tokens a prompt. All
sides score one query after another in this process, in an order that rotates, so that a machine that slows down slows
all. Speed is the median over queries of the ratio of times to bf16's and to the reference's; order is nDCG@10, its
paired difference to the reference, Kendall's tau over all candidates, and the share of the reference's top 10 that is
kept. Queries are kept in --out as they are done, and not scored again. Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.runs.collections import DATA
from benchmarks.runs.results import COLLECTIONS, MEASURES, present, subset
from benchmarks.runs.turns import ended
from benchmarks.tables.writer import table
from prorank.journal import Journal, journal_key
from prorank.progress import progress_bar

if TYPE_CHECKING:
    from prorank import Reranker
    from prorank.data.collection import Collection
    from prorank.types import Run

FP32, BF16, INT8, OPENVINO = "fp32", "bf16", "native int8", "openvino int8"
LEVELS = ("fast", "faster")
EARLY = {f"{side}, {level}": (side, level) for side in (BF16, INT8) for level in LEVELS}
"""Side with early exits -> (the side without, the level)."""
REFERENCE = {BF16: FP32, INT8: FP32, OPENVINO: FP32, **{side: whole for side, (whole, _) in EARLY.items()}}
"""Side -> whose order it should have."""
NDCG = MEASURES[0]


class Query(NamedTuple):
    """One line of --out."""

    collection: str
    query_id: str
    seconds: dict[str, float]
    margins: dict[str, list[float]]


class Asked(NamedTuple):
    """A collection's queries."""

    collection: Collection
    candidates: Run
    min_relevance: int
    """The least judgment that counts as relevant."""


def main() -> int:
    args = parse()
    try:
        with tempfile.TemporaryDirectory(prefix="prorank-bench-") as scratch:
            asked = {name: loaded(name, args) for name in present(args.collections, args.data)}
            found = scored(args, asked, Path(scratch))
    except (ValueError, OSError, ImportError) as error:
        print(f"order_kept: error: {error}", file=sys.stderr)
        return 2
    result = summary(args, asked, found)
    print(shown(result))
    return ended(result, args.append)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the collections")
    parser.add_argument("--collections", nargs="+", choices=list(COLLECTIONS), default=["nfcorpus", "scifact"])
    parser.add_argument("--queries", type=int, default=20, metavar="N", help="of each (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=100, metavar="N", help="candidates (default: %(default)s)")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of a prompt (default: the model's own)")
    parser.add_argument("--model", help="a checkpoint with read-outs (default: the built-in reranker)")
    parser.add_argument("--only", nargs="+", choices=[FP32, *REFERENCE], default=[FP32, *REFERENCE], help="sides")
    parser.add_argument("--out", type=Path, default=Path("runs/order-kept.jsonl"), help="default: %(default)s")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the record to this file")
    args = parser.parse_args()
    if min(args.queries, args.top_k) < 1:
        parser.error("--queries, --top-k: expected numbers of at least 1")
    return args


def loaded(name: str, args: argparse.Namespace) -> Asked:
    """The queries of a collection, and their candidates."""
    from prorank.data import first_stage, load_collection

    split, spec, min_relevance = COLLECTIONS[name]
    collection = subset(load_collection(args.data / name, split), args.queries)
    return Asked(collection, first_stage(spec, collection, args.top_k), min_relevance)


def scored(args: argparse.Namespace, asked: Mapping[str, Asked], scratch: Path) -> list[Query]:
    """Every query by every side."""
    jobs = [
        (name, q, query.text, texts_of(one.collection, one.candidates[q]))
        for name, one in asked.items()
        for q, query in one.collection.queries.items()
    ]
    ways, key = sides(args, scratch)
    with Journal(args.out, key) as journal, progress_bar("queries", len(jobs)) as advance:
        done = {(entry["collection"], entry["query_id"]): Query(**entry) for entry in journal.entries}
        for turn, (name, query_id, query, texts) in enumerate(jobs):
            if (name, query_id) not in done:
                first = turn % len(ways)
                one = Query(name, query_id, {}, {})
                for side in [*list(ways)[first:], *list(ways)[:first]]:
                    start = time.perf_counter()
                    margins = ways[side](query, texts)
                    one.seconds[side] = time.perf_counter() - start
                    one.margins[side] = margins.tolist()
                done[name, query_id] = one
                journal.append(one._asdict())
            if advance is not None:
                advance(1)
    return [done[name, query_id] for name, query_id, _, _ in jobs]


def texts_of(collection: Any, candidates: Mapping[str, float]) -> list[str]:
    return [collection.documents[doc_id].content for doc_id in candidates]


def sides(args: argparse.Namespace, scratch: Path) -> tuple[dict[str, Callable[[str, list[str]], Any]], str]:
    """Side -> what scores a query's texts, warmed up; and the key of what scores depend on."""
    from prorank import Reranker
    from prorank.export.targets import export

    def opened(dtype: str) -> Reranker:
        return Reranker.from_pretrained(args.model, dtype=dtype, max_length=args.max_length)

    def by(reranker: Reranker, level: str = "exact") -> Callable[[str, list[str]], Any]:
        return lambda query, texts: reranker.margins(query, texts, cascade=level)

    models = {BF16: opened("bfloat16"), FP32: opened("float32")}
    for side, target in ((INT8, "native-int8"), (OPENVINO, "openvino-int8")):
        if any(side in one for one in args.only):
            models[side] = Reranker.from_pretrained(export(models[FP32], target, scratch / target))
    ways = {side: by(model) for side, model in models.items()}
    ways |= {side: by(models[whole], level) for side, (whole, level) in EARLY.items() if whole in models}
    ways = {side: ways[side] for side in args.only}
    for way in ways.values():
        way("warm", [f"{'word ' * 30}{number}" for number in range(20)])
    cascade = models[BF16].cascade
    read_outs = cascade.sha256 if cascade else None
    depends = {"model": models[BF16].fingerprint, "read_outs": read_outs, "sides": list(ways), "top_k": args.top_k}
    return ways, journal_key(depends)


def summary(args: argparse.Namespace, asked: Mapping[str, Asked], found: Sequence[Query]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "benchmark": "order_kept",
        "settings": {key: value for key, value in vars(args).items() if key not in ("data", "out", "append")},
        "collections": {},
        "verdict": {},
    }
    for name, one in asked.items():
        rows = of_collection(args.only, one, [query for query in found if query.collection == name])
        result["collections"][name] = rows
        for side, (_, level) in EARLY.items():
            if level == "fast" and "difference" in rows.get(side, {}):
                row = rows[side]
                result["verdict"][f"{name}: {side}: at least 2 times as many documents/s"] = row["times_reference"] >= 2
                kept = row["difference"]["mean"] >= -0.005
                result["verdict"][f"{name}: {side}: loses at most .005 of nDCG@10"] = kept
        if INT8 in rows:
            difference, tau = rows[INT8]["difference"], rows[INT8]["kendall_tau"]
            contains = difference["low"] <= 0 <= difference["high"] and difference["high"] - difference["low"] < 0.01
            result["verdict"][f"{name}: nDCG@10 of int8 within .003"] = abs(difference["mean"]) <= 0.003 or contains
            result["verdict"][f"{name}: Kendall's tau of int8 at least .98"] = tau >= 0.98
    return result


def of_collection(sides: Sequence[str], asked: Asked, found: Sequence[Query]) -> dict[str, dict[str, Any]]:
    """Side -> its speed and its order, on one collection."""
    from scipy.stats import kendalltau

    from prorank.evaluate.metrics import measure, ranked
    from prorank.evaluate.significance import bootstrap_interval

    collection, candidates, min_relevance = asked
    rows: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for side in sides:
        run = {one.query_id: ranked(list(candidates[one.query_id]), one.margins[side]) for one in found}
        measured = measure(run, collection.qrels, [NDCG], min_relevance=min_relevance).values[NDCG]
        values[side] = np.array([measured[one.query_id] for one in found])
        documents = sum(len(one.margins[side]) for one in found)
        row = rows[side] = {
            "documents_per_second": round(documents / sum(one.seconds[side] for one in found), 2),
            "ndcg": round(float(values[side].mean()), 4), "queries": len(found),
        }  # fmt: skip
        if BF16 in sides:
            times = statistics.median(one.seconds[BF16] / one.seconds[side] for one in found)
            row["times_bf16"] = round(times, 2)
        reference = REFERENCE.get(side)
        if reference in values:
            pairs = [(one.margins[reference], one.margins[side]) for one in found if len(one.margins[side]) > 1]
            row["reference"] = reference
            times = statistics.median(one.seconds[reference] / one.seconds[side] for one in found)
            row["times_reference"] = round(times, 2)
            row["difference"] = bootstrap_interval(values[side] - values[reference])._asdict()
            row["kendall_tau"] = round(float(np.mean([kendalltau(a, b).statistic for a, b in pairs])), 4)
            row["top_kept"] = round(float(np.mean([overlap(a, b) for a, b in pairs])), 4)
    return rows


def overlap(a: Sequence[float], b: Sequence[float], k: int = 10) -> float:
    """Share of a's top k that is in b's."""
    first, second = (set(np.argsort(-np.array(values), kind="stable")[:k].tolist()) for values in (a, b))
    return len(first & second) / len(first)


def shown(result: Mapping[str, Any]) -> str:
    """A row a side and collection."""
    rows = []
    for name, sides_of in result["collections"].items():
        for side, row in sides_of.items():
            cells = [f"{row['documents_per_second']:.1f}", f"{row['times_bf16']:.2f} x" if "times_bf16" in row else ""]
            cells.append(f"{row['ndcg']:.4f}")
            if "difference" in row:
                d = row["difference"]
                cells += [row["reference"], f"{row['times_reference']:.2f} x"]
                cells.append(f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]")
                cells += [f"{row['top_kept']:.1%}", f"{row['kendall_tau']:.3f}"]
            else:
                cells += [""] * 5
            rows.append([name, side, *cells])
    heads = ["", "", "docs/s", "against bf16", NDCG, "beside", "speed", "difference", "top 10 kept", "Kendall's tau"]
    return table(heads, rows)


if __name__ == "__main__":
    sys.exit(main())
