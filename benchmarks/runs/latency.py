"""How long one query waits: 1, 10 and 100 documents of 128 and 512 tokens, on 1 and 2 threads, beside PyTorch.

    python -m benchmarks.runs.latency --append benchmarks/results/latency.jsonl
    python -m benchmarks.runs.latency --repeats 1 --documents 1 --tokens 128 --threads 1      # does it run?

Whole prompts of so many tokens, of words that no other repeat has, and a new query each time, as a chat application
asks: its prefix is computed within the time. Sides take turns; medians. Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs.turns import ended

WORDS = "germ cell immune vaccine bread market antibody memory town river paper light stone music winter".split()  # noqa: SIM905


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a checkpoint (default: the built-in reranker)")
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512], help="of a whole prompt")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--append", type=Path)
    args = parser.parse_args()
    rows = [row for threads in args.threads for tokens in args.tokens for row in measured(args, threads, tokens)]
    print(f"{'threads':>7}{'tokens':>8}{'documents':>11}  " + "".join(f"{name + ', ms':>16}" for name in SIDES))
    for row in rows:
        times = "".join(f"{row['milliseconds'][name]:>16.1f}" for name in SIDES)
        print(f"{row['threads']:>7}{row['tokens']:>8}{row['documents']:>11}  {times}")
    settings = {"model": args.model or "", "repeats": args.repeats}
    return ended({"benchmark": "latency", "settings": settings, "rows": rows, "verdict": {}}, args.append)


SIDES = {"native": {"backend": "native"}, "torch": {"backend": "torch", "dtype": "auto", "device": "cpu"}}


def measured(args: argparse.Namespace, threads: int, tokens: int) -> list[dict[str, Any]]:
    from prorank import Reranker

    common = {"threads": threads, "max_length": tokens, "long_documents": "truncate"}
    sides = {name: Reranker.from_pretrained(args.model, **common, **options) for name, options in SIDES.items()}  # type: ignore[arg-type]
    rng = np.random.default_rng(0)

    def text(words: int) -> str:
        numbers = rng.integers(0, 99, words)
        return " ".join(f"{word}{number}" for word, number in zip(rng.choice(WORDS, words), numbers, strict=True))

    found = []
    for count in args.documents:
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(args.repeats + 1):
            query, documents = text(6), [text(tokens) for _ in range(count)]
            for name, side in sides.items():
                start = time.perf_counter()
                side.rank(query, documents)
                if repeat:  # the first one warms up
                    seconds[name].append(time.perf_counter() - start)
        median = {name: round(1000 * statistics.median(times), 2) for name, times in seconds.items()}
        print(f"{threads} threads, {tokens} tokens, {count} documents: {median}", file=sys.stderr, flush=True)
        found.append({"threads": threads, "tokens": tokens, "documents": count, "milliseconds": median})
    return found


if __name__ == "__main__":
    sys.exit(main())
