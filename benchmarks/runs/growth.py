"""How the cost grows with documents, and with their length: seconds and peak memory, a process a backend.

    python -m benchmarks.runs.growth --append benchmarks/results/growth.jsonl
    python -m benchmarks.runs.growth --documents 10 50 --words 8 16 --repeats 1         # does it run?

One query, the built-in reranker. First `--documents` short passages (16 words each, all different), fewest first, so
that the peak after each is what so many take; then 32 passages of `--words` words. Medians of the repeats; more than
1,000 documents are scored once. The sides are those of `engine.py`. Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs.collections import DATA
from benchmarks.runs.engine import BF16, INT8, sides
from benchmarks.runs.turns import Jobs, ended, take_turns

SHORT, MANY, FEW = 16, 1000, 32
"""Words of a short passage; documents from which one repeat is enough; passages where the length grows."""
TOLERANCE = 1.2
"""How much more than at 100 documents one may cost at the most documents."""


def main() -> int:
    args = parse()
    query, passages = material(args)
    plan: list[tuple[str, list[str]]] = [("documents", passages[:count]) for count in args.documents]
    plan += [("tokens", lengthened(passages, words)) for words in args.words]
    order = [number for number, (_, texts) in enumerate(plan) for _ in range(args.repeats if len(texts) <= MANY else 1)]
    repeats: list[Jobs] = [[(query, plan[number][1])] for number in order]
    with tempfile.TemporaryDirectory(prefix="prorank-bench-") as scratch:
        running = take_turns(sides(args, Path(scratch), [(query, passages[:FEW])]), repeats)
    measured = {side.name: points(plan, order, side.results) for side in running}
    result = summary(args, measured, own_tokens(args, query, plan))
    print_table(result)
    return ended(result, args.append)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA / "msmarco-sample", help="a BEIR folder of many passages")
    parser.add_argument("--documents", type=int, nargs="+", default=[10, 100, 1000, 10_000], metavar="N")
    parser.add_argument("--words", type=int, nargs="+", default=[16, 32, 64, 128, 256], metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=[BF16, INT8], help="sides of engine.py (default: %(default)s)")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the record to this file")
    parser.set_defaults(model=None, max_length=512, mxbai_python=None)
    args = parser.parse_args()
    if not args.data.is_dir():
        parser.error(f"--data {args.data}: no such folder (expected a BEIR folder)")
    if min(*args.documents, *args.words, args.repeats) < 1:
        parser.error("--documents, --words, --repeats: expected numbers of at least 1")
    return args


def material(args: argparse.Namespace) -> tuple[str, list[str]]:
    """A query, and as many different short passages as the longest list needs."""
    from prorank.data.load import load_collection

    collection = load_collection(args.data, "train")
    texts = (document.content.split()[:SHORT] for document in collection.documents.values())
    passages = list(dict.fromkeys(" ".join(words) for words in texts if len(words) == SHORT))
    wanted = max(*args.documents, FEW * -(-max(args.words) // SHORT))
    if len(passages) < wanted:
        raise SystemExit(f"--data {args.data}: {wanted} passages of {SHORT} words wanted, it has {len(passages)}")
    return next(iter(collection.queries.values())).text, passages


def lengthened(passages: Sequence[str], words: int) -> list[str]:
    """``FEW`` texts of so many words, joined from passages."""
    joined = -(-words // SHORT)
    return [" ".join(" ".join(passages[i::FEW][:joined]).split()[:words]) for i in range(FEW)]


def points(
    plan: Sequence[tuple[str, list[str]]], order: Sequence[int], results: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One for each step of the plan: the median's seconds, and the peak when the step was over."""
    found = []
    for number, (_, texts) in enumerate(plan):
        mine = [result for step, result in zip(order, results, strict=True) if step == number]
        seconds = statistics.median(result["seconds"] for result in mine)
        found.append({"documents": len(texts), "seconds": round(seconds, 3), "peak_mib": mine[-1]["peak_mib"]})
    return found


def own_tokens(args: argparse.Namespace, query: str, plan: Sequence[tuple[str, list[str]]]) -> list[float]:
    """Mean tokens of a document in each step, the template's after it included."""
    from prorank import Reranker

    model = Reranker.from_pretrained(args.model, max_length=args.max_length)
    encoded = (model.encode(query, texts[:FEW]).group.own_ids for _, texts in plan)
    return [round(statistics.mean(len(ids) for ids in own), 1) for own in encoded]


def summary(
    args: argparse.Namespace, measured: dict[str, list[dict[str, Any]]], tokens: Sequence[float]
) -> dict[str, Any]:
    many = len(args.documents)
    settings = {"data": args.data.name, "repeats": args.repeats, "words": SHORT, "model": "built-in"}
    result: dict[str, Any] = {"benchmark": "growth", "settings": settings, "sides": {}, "verdict": {}}
    for name, found in measured.items():
        for point, own in zip(found, tokens, strict=True):
            point["tokens"] = own
        least = next((point for point in found[:many] if point["documents"] >= 100), found[0])
        most = max(found[:many], key=lambda point: point["documents"])
        ratio = (most["seconds"] / most["documents"]) / (least["seconds"] / least["documents"])
        result["sides"][name] = {
            "documents": found[:many], "tokens": found[many:], "ratio": round(ratio, 3),
            "growth_mib": round(most["peak_mib"] - least["peak_mib"], 1),
        }  # fmt: skip
        least_of, most_of = (f"one of {point['documents']:,} documents" for point in (least, most))
        result["verdict"][f"{name}: {most_of} costs at most {TOLERANCE} times {least_of}"] = ratio <= TOLERANCE
    return result


def print_table(result: dict[str, Any]) -> None:
    print(f"{'side':<16}{'documents':>10}{'tokens each':>12}{'seconds':>10}{'docs/s':>9}{'peak MiB':>10}")
    for name, side in result["sides"].items():
        for point in [*side["documents"], *side["tokens"]]:
            speed = point["documents"] / point["seconds"]
            print(
                f"{name:<16}{point['documents']:>10,}{point['tokens']:>12.0f}{point['seconds']:>10.2f}{speed:>9.1f}"
                f"{point['peak_mib']:>10.0f}"
            )
    for told, passed in result["verdict"].items():
        print(f"{'yes' if passed else 'NO':<4}{told}")


if __name__ == "__main__":
    raise SystemExit(main())
