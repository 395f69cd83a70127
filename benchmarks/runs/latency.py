"""How long one query waits: 1, 10 and 100 documents of 128 and 512 tokens, on 1 and 2 threads, beside PyTorch.

    python -m benchmarks.runs.latency --append benchmarks/results/latency.jsonl
    python -m benchmarks.runs.latency --quick       # about 5 minutes on two AVX2 cores; leaves the largest lists out
    python -m benchmarks.runs.latency --repeats 1 --documents 1 --tokens 128 --threads 1      # does it run?

Whole prompts of so many tokens, of words that no other repeat has, and a new query each time, as a chat application
asks: its prefix is computed within the time. Sides take turns; medians. The MiniLM cross-encoders have random weights
and drawn tokens (`random_encoder.py`): they show speed alone, and are spared their tokenizer.
Prints each line as it is measured, then a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs.random_encoder import Encoder, write_encoder
from benchmarks.runs.turns import ended

WORDS = "germ cell immune vaccine bread market antibody memory town river paper light stone music winter".split()  # noqa: SIM905
SIDES = {"native": {"backend": "native"}, "torch": {"backend": "torch", "dtype": "auto", "device": "cpu"}}
ENCODERS = {"minilm-l6": 6, "minilm-l12": 12}
QUICK = 6_500
"""Most tokens a thread of a list that `--quick` measures."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a checkpoint (default: the built-in reranker)")
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512], help="of a whole prompt")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, help="default: 5, with --quick 2")
    parser.add_argument("--quick", action="store_true", help=f"no lists above {QUICK} tokens a thread; short warm-up")
    parser.add_argument("--no-encoders", action="store_true", help="without the MiniLM cross-encoders")
    parser.add_argument("--append", type=Path)
    args = parser.parse_args()
    args.repeats = args.repeats or (2 if args.quick else 5)
    cells = [(threads, tokens) for threads in args.threads for tokens in args.tokens]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="prorank-latency-") as scratch:
        encoders = {} if args.no_encoders else written(Path(scratch))
        for number, (threads, tokens) in enumerate(cells, 1):
            print(f"part {number} of {len(cells)}: {threads} threads, {tokens} tokens", file=sys.stderr, flush=True)
            rows += measured(args, threads, tokens, encoders)
    names = [*SIDES, *encoders]
    print(f"{'threads':>7}{'tokens':>8}{'documents':>11}  " + "".join(f"{name + ', ms':>16}" for name in names))
    for row in rows:
        times = "".join(f"{row['milliseconds'][name]:>16.1f}" for name in names)
        print(f"{row['threads']:>7}{row['tokens']:>8}{row['documents']:>11}  {times}")
    if encoders:
        print("minilm: random weights in MiniLM's shape, int8 in ONNX Runtime: speed alone, no quality")
    settings = {"model": args.model or "", "repeats": args.repeats, "quick": args.quick}
    return ended({"benchmark": "latency", "settings": settings, "rows": rows, "verdict": {}}, args.append)


def written(scratch: Path) -> dict[str, Path]:
    """The encoders' files, or none where ONNX Runtime is not installed."""
    lacks = [name for name in ("onnxruntime", "onnx") if importlib.util.find_spec(name) is None]
    if lacks:
        print(f"no encoders: {lacks[0]} is not installed: pip install 'prorank[onnx]'", file=sys.stderr)
        return {}
    found = {}
    for name, layers in ENCODERS.items():
        print(f"making {name} ...", file=sys.stderr, flush=True)
        (scratch / name).mkdir()
        found[name] = write_encoder(scratch / name, layers)
    return found


def measured(args: argparse.Namespace, threads: int, tokens: int, encoders: dict[str, Path]) -> list[dict[str, Any]]:
    from prorank import Reranker

    counts = [count for count in args.documents if not (args.quick and count * tokens > QUICK * threads)]
    if not counts:
        return []
    common = {"threads": threads, "max_length": tokens, "long_documents": "truncate"}
    sides: dict[str, Callable[[str, list[str]], object]] = {
        name: Reranker.from_pretrained(args.model, **common, **options).rank  # type: ignore[arg-type]
        for name, options in SIDES.items()
    }
    for name, path in encoders.items():
        encoder = Encoder(path, threads)
        sides[name] = lambda _, documents, encoder=encoder: encoder.score(len(documents), tokens)  # type: ignore[misc]
    rng = np.random.default_rng(0)

    def text(words: int) -> str:
        numbers = rng.integers(0, 99, words)
        return " ".join(f"{word}{number}" for word, number in zip(rng.choice(WORDS, words), numbers, strict=True))

    found = []
    for count in counts:
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(args.repeats + 1):
            warming = repeat == 0
            query, documents = (
                text(6),
                [text(tokens) for _ in range(min(count, 2) if warming and args.quick else count)],
            )
            for name, side in sides.items():
                start = time.perf_counter()
                side(query, documents)
                if not warming:
                    seconds[name].append(time.perf_counter() - start)
        median = {name: round(1000 * statistics.median(times), 2) for name, times in seconds.items()}
        print(f"{threads} threads, {tokens} tokens, {count} documents: {median}", file=sys.stderr, flush=True)
        found.append({"threads": threads, "tokens": tokens, "documents": count, "milliseconds": median})
    return found


if __name__ == "__main__":
    sys.exit(main())
