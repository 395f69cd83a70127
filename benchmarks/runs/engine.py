"""Every backend of ours beside mxbai-rerank and llama.cpp: documents a second, memory, and whether the order is kept.

    python -m benchmarks.runs.engine --append benchmarks/results/engine.jsonl
    python -m benchmarks.runs.engine --quick               # about 6 minutes on two AVX2 cores
    python -m benchmarks.runs.engine --repeats 1 --queries 1 --documents 4 --only "torch bf16" "int8"  # does it run?

Each side is a process of its own (see `scoring.py`, whose pairs, turns and timing these are) with the same weights: the
built-in reranker, merged. mxbai-rerank asks in its own prompt; all others in ours. llama.cpp runs our prompt's ids in
its own Q8_0 format, prefix kept, through our llamacpp backend, its fastest right-scoring use. `--documents` of BM25's
top 100 a query are timed; the default takes neighbours in length, so that nobody is charged for padding.
The share of the peak is (operations counted from the architecture for the real tokens: two per weight of every linear
layer, and attention's) / seconds / (the fastest matrix product of that precision that this very run measured); there
is none where PyTorch only emulates a precision, slower than float32.
`--quick`: 2 repeats of one query's 8 documents, prompts of at most 256 tokens, a short first call; our own engine as
it runs by default (made in seconds, without the corrections of an export), PyTorch, llama.cpp where it is installed,
mxbai-rerank where `--mxbai-python` is given; no bfloat16 where the processor has no instructions for it.
Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs.scoring import (
    PEER,
    for_transformers_4,
    mxbai_environment,
    pairs_of,
    parsed,
    parser_of,
    settings_of,
)
from benchmarks.runs.turns import Jobs, Side, ended, take_turns
from prorank.backends.processor import reaches
from prorank.evaluate.speed import PRECISIONS, matrix_peak, own_peaks, precision_of

REFERENCE, BF16, INT8, LLAMA = "torch fp32", "torch bf16", "native int8", "llama.cpp q8_0"
EXPORTS = {
    INT8: "native-int8",
    "openvino int8": "openvino-int8",
    "openvino bf16": "openvino-bf16",
    "onnx int8": "onnx-int8",
    LLAMA: "gguf-q8",
}


def main() -> int:
    args = parse()
    repeats, first = pairs_of(args)
    if args.quick:
        first = [(query, documents[:4]) for query, documents in first]
    with tempfile.TemporaryDirectory(prefix="prorank-bench-") as scratch:
        running = take_turns(sides(args, Path(scratch), first), repeats)
    work = operations(args, repeats)
    print("measuring the peak of a matrix product", file=sys.stderr, flush=True)
    peak = {name: round(matrix_peak(name), 1) for name in PRECISIONS}
    result = summary(args, running, work, peak)
    print_table(result)
    return ended(result, args.append)


def parse() -> argparse.Namespace:
    parser = parser_of(__doc__, queries=3, documents=16)
    parser.add_argument("--model", help="a checkpoint (default: the built-in reranker)")
    parser.add_argument("--quick", action="store_true", help="few documents and sides; see above")
    if "--quick" in sys.argv:
        parser.set_defaults(queries=1, documents=8, repeats=2, max_length=256)
    return parsed(parser)


def in_time(args: argparse.Namespace, name: str) -> bool:
    """Whether a side belongs to `--quick`."""
    if name == PEER:
        return args.mxbai_python is not None
    return name in (REFERENCE, INT8, LLAMA) or (name == BF16 and reaches("avx512_bf16"))


def sides(args: argparse.Namespace, scratch: Path, warm: Jobs) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (interpreter, what its process is told)."""
    from prorank import Reranker
    from prorank.export.targets import export

    def wanted(name: str) -> bool:
        if args.only:
            return any(word in name for word in args.only)
        return not args.quick or in_time(args, name)

    model = Reranker.from_pretrained(args.model, dtype="float32", max_length=args.max_length)
    merged = model.save(scratch / "merged")

    def ours(folder: Path, **arguments: Any) -> tuple[str, dict[str, Any]]:
        return sys.executable, {"kind": "prorank", "folder": str(folder), "arguments": arguments, "warm": warm}

    plan: dict[str, tuple[str, dict[str, Any]]] = {}
    if wanted(PEER):
        for_transformers_4(merged, scratch / "mxbai")
        told = {"kind": "mxbai", "folder": str(scratch / "mxbai"), "max_length": args.max_length, "warm": warm}
        plan[PEER] = (args.mxbai_python or mxbai_environment(), told)
    plan[REFERENCE] = ours(merged, dtype="float32")
    plan[BF16] = ours(merged, dtype="bfloat16")
    for name, target in EXPORTS.items():
        if name == INT8 and args.quick and wanted(name):
            told = {"backend": "native", "max_length": args.max_length}
            plan[name] = (sys.executable, {"kind": "export", "folder": args.model, "arguments": told, "warm": warm})
        elif wanted(name) and installed(name, target):
            print(f"exporting {target}", file=sys.stderr, flush=True)
            folder = export(model, target, scratch / target)
            plan[name] = (sys.executable, {"kind": "export", "folder": str(folder), "warm": warm})
    return {name: side for name, side in plan.items() if wanted(name)}


def installed(name: str, target: str) -> bool:
    """Whether the library behind a side is there; where it is not, the side is left out, with a word."""
    from prorank.export.targets import TARGETS

    backend = TARGETS[target].backend
    module = {"native": "ctypes", "onnx": "onnxruntime", "llamacpp": "llama_cpp"}.get(backend, backend)
    there = importlib.util.find_spec(module) is not None
    if not there:
        print(f"{name}: left out, {module} is not installed: pip install 'prorank[{backend}]'", file=sys.stderr)
    return there


def operations(args: argparse.Namespace, repeats: list[Jobs]) -> float:
    """Operations of all repeats: real tokens only, a query's prefix once."""
    from prorank import Reranker
    from prorank.evaluate.speed import operations as of_query

    model = Reranker.from_pretrained(args.model, dtype="float32", max_length=args.max_length)
    config = model.backend.model.config.get_text_config().to_dict()  # type: ignore[attr-defined]
    groups = [model.encode(query, documents).group for jobs in repeats for query, documents in jobs]
    return sum(of_query(config, len(group.prefix_ids), [len(ids) for ids in group.own_ids]) for group in groups)


def summary(args: argparse.Namespace, running: list[Side], work: float, peak: dict[str, float]) -> dict[str, Any]:
    from scipy.stats import kendalltau

    rows = {side.name: side.row() for side in running}
    by_name = {side.name: side for side in running}
    result: dict[str, Any] = {
        "benchmark": "engine", "settings": settings_of(args), "gflop": round(work / 1e9, 1),
        "peak_gflop_per_second": peak, "sides": rows, "ratios": {}, "verdict": {},
    }  # fmt: skip
    for side in running:
        if side.name == PEER:
            continue
        if side.name != LLAMA:  # its products are not in one precision
            precision = precision_of(str(side.facts["backend"]))
            seconds = sum(answer["seconds"] for answer in side.results)
            if precision in own_peaks(peak):
                rows[side.name]["share_of_peak"] = round(work / 1e9 / seconds / peak[precision], 3)
        if REFERENCE in by_name and side.name != REFERENCE:
            taus = [
                kendalltau(a, b).statistic
                for ours, theirs in zip(side.results, by_name[REFERENCE].results, strict=True)
                for a, b in zip(ours["scores"], theirs["scores"], strict=True)
            ]
            rows[side.name]["kendall_tau"] = round(float(np.mean(taus)), 4)

    def times(ours: str, theirs: str) -> float | None:
        if ours not in by_name or theirs not in by_name:
            return None
        pairs = zip(by_name[ours].results, by_name[theirs].results, strict=True)
        return round(statistics.median(a["pairs_per_second"] / b["pairs_per_second"] for a, b in pairs), 2)

    for ours, theirs, least in ((INT8, PEER, 8.0), (INT8, LLAMA, 1.5), (INT8, BF16, 1.5), (BF16, PEER, 4.0)):
        ratio = times(ours, theirs)
        if ratio is not None:
            result["ratios"][f"{ours}: times {theirs}'s speed"] = ratio
            result["verdict"][f"{ours}: {least} times {theirs}'s speed"] = ratio >= least
    if "share_of_peak" in rows.get(INT8, {}):
        result["verdict"][f"{INT8}: at least half of the peak"] = rows[INT8]["share_of_peak"] >= 0.5
    if INT8 in rows:
        result["verdict"][f"{INT8}: at most 450 MiB"] = rows[INT8]["peak_mib"] <= 450
        if "kendall_tau" in rows[INT8]:
            result["verdict"][f"{INT8}: Kendall's tau at least 0.98"] = rows[INT8]["kendall_tau"] >= 0.98
    return result


def print_table(result: dict[str, Any]) -> None:
    settings = result["settings"]
    print(
        f"{settings['data']} {settings['split']}: {settings['repeats']} repeats of {settings['queries']} queries, "
        f"{settings['documents']} of BM25's top {settings['top_k']} each, whole prompts of at most "
        f"{settings['max_length']} tokens; peak of a matrix product, GFLOP/s: {result['peak_gflop_per_second']}"
    )
    print(f"{'side':<18}{'docs/s':>9}{'peak MiB':>10}{'of peak':>9}{'tau':>8}  repeats, docs/s")
    for name, row in result["sides"].items():
        repeats = " ".join(f"{speed:.2f}" for speed in row["repeats"])
        share, tau = row.get("share_of_peak", ""), row.get("kendall_tau", "")
        print(f"{name:<18}{row['pairs_per_second']:>9.2f}{row['peak_mib']:>10.0f}{share:>9}{tau:>8}  {repeats}")
    for name, value in result["ratios"].items():
        print(f"{name}: {value}")
    for name, passed in result["verdict"].items():
        print(f"{'ok  ' if passed else 'FAIL'}  {name}")


if __name__ == "__main__":
    sys.exit(main())
