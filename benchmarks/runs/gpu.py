"""Our PyTorch backend on a GPU beside plain transformers: documents a second, GPU memory, share of the peak.

    python -m benchmarks.runs.gpu --append benchmarks/results/gpu.jsonl
    python -m benchmarks.runs.gpu --device cpu --repeats 1 --queries 1 --documents 4           # does it run?

All sides hold the same weights in bfloat16, in this process, one after the other. "transformers" is what a careful
user writes: whole prompts sorted by length, padded on the left, 64 a batch, SDPA, logits of the last position only.
"prorank" computes a query's prefix once and two rows of the output matrix; "prorank, whole prompts" does without the
first.
The pairs are those of `engine.py`. Without a GPU it says so and ends. Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.runs.scoring import pairs_of, parsed, parser_of, settings_of
from benchmarks.runs.turns import ended
from prorank import Reranker
from prorank.evaluate.speed import matrix_peak, operations
from prorank.types import EncodedGroup

PEER, OURS, WHOLE = "transformers", "prorank", "prorank, whole prompts"
WANTED = 2.0
"""Times plain transformers' documents a second."""

Score = Callable[[EncodedGroup], np.ndarray]


def main() -> int:
    args = parse()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"benchmark": "gpu", "skipped": "no CUDA device here"}))
        return 0
    repeats, _ = pairs_of(args)
    model = Reranker.from_pretrained(
        args.model, device=args.device, dtype="bfloat16", max_length=args.max_length, batch_tokens=args.batch_tokens
    )
    groups = [[model.encode(query, texts).group for query, texts in jobs] for jobs in repeats]
    rows = {name: measured(score, groups, args.device) for name, score in sides(args, model).items()}
    result = summary(args, model, groups, rows)
    print_table(result)
    return ended(result, args.append)


def parse() -> argparse.Namespace:
    parser = parser_of(__doc__, queries=20, documents=100)
    parser.add_argument("--model", help="a checkpoint (default: the built-in reranker)")
    parser.add_argument("--device", default="cuda", help="(default: %(default)s)")
    parser.add_argument("--batch-tokens", type=int, help="own tokens in one forward pass (default: the library's)")
    return parsed(parser)


def sides(args: argparse.Namespace, model: Reranker) -> dict[str, Score]:
    """Name -> scorer of token ids: text costs the same everywhere and is not timed."""
    from prorank.backends.torch import TorchBackend
    from prorank.scoring import score_groups

    backend: Any = model.backend
    whole = TorchBackend(backend.model, backend.label_ids, share_prefix=False)
    ours = {
        PEER: lambda group: plain(backend.model, backend.label_ids, group),
        OURS: lambda group: score_groups(backend, [group], batch_tokens=model.batch_tokens)[0],
        WHOLE: lambda group: score_groups(whole, [group], batch_tokens=model.batch_tokens)[0],
    }
    return {name: score for name, score in ours.items() if not args.only or name in args.only}


@torch.inference_mode()
def plain(model: Any, label_ids: Sequence[int], group: EncodedGroup, rows: int = 64) -> np.ndarray:
    """Margins by padded batches of whole prompts."""
    prompts = [[*group.prefix_ids, *own] for own in group.own_ids]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    margins = np.zeros(len(prompts), dtype=np.float32)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        width = max(len(prompts[i]) for i in chosen)
        ids = torch.zeros((len(chosen), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(chosen):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, width - len(prompts[i]) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        ids, mask, positions = (x.to(model.device) for x in (ids, mask, positions))
        output = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1)
        logits = output.logits[:, -1, list(label_ids)].float().cpu().numpy()
        margins[chosen] = logits[:, 1] - logits[:, 0]
    return margins


def measured(score: Score, repeats: Sequence[Sequence[EncodedGroup]], device: str) -> dict[str, Any]:
    """A side's speed in every repeat, its memory and its margins; the first query is scored once before, untimed."""
    score(repeats[0][0])
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    speeds, margins = [], []
    for groups in repeats:
        start = time.perf_counter()
        margins += [score(group) for group in groups]  # margins are on the processor: the GPU has finished
        speeds.append(sum(len(group.own_ids) for group in groups) / (time.perf_counter() - start))
    memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
    return {
        "documents_per_second": round(statistics.median(speeds), 2), "repeats": [round(s, 2) for s in speeds],
        "peak_gpu_mib": memory and round(memory, 1), "margins": margins,
    }  # fmt: skip


def summary(
    args: argparse.Namespace, model: Reranker, groups: list[list[EncodedGroup]], rows: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    config = model.backend.model.config.get_text_config().to_dict()  # type: ignore[attr-defined]
    flat = [group for one in groups for group in one]
    work = sum(operations(config, len(g.prefix_ids), [len(ids) for ids in g.own_ids]) for g in flat) / 1e9
    peak = matrix_peak("bfloat16", 8192 if args.device == "cuda" else 1536, device=args.device)
    documents = sum(len(group.own_ids) for group in flat)
    margins = {name: np.concatenate(row.pop("margins")) for name, row in rows.items()}
    for name, row in rows.items():
        row["share_of_peak"] = round(work * row["documents_per_second"] / documents / peak, 3)
        if PEER in margins and name != PEER:
            row["largest_difference"] = round(float(np.abs(margins[name] - margins[PEER]).max()), 4)
    result: dict[str, Any] = {
        "benchmark": "gpu", "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
        "settings": settings_of(args), "gflop": round(work, 1), "peak_gflop_per_second": round(peak, 1), "sides": rows,
        "ratios": {}, "verdict": {},
    }  # fmt: skip
    if {PEER, OURS} <= set(rows):
        pairs = zip(rows[OURS]["repeats"], rows[PEER]["repeats"], strict=True)
        ratio = round(statistics.median(a / b for a, b in pairs), 2)
        result["ratios"][f"{OURS}: times {PEER}'s speed"] = ratio
        if args.device == "cuda":
            result["verdict"][f"{OURS}: {WANTED} times {PEER}'s speed"] = ratio >= WANTED
    return result


def print_table(result: dict[str, Any]) -> None:
    print(f"{result['device']}; bfloat16 product {result['peak_gflop_per_second']} GFLOP/s; {result['settings']}")
    print(f"{'side':<24}{'docs/s':>9}{'GPU MiB':>9}{'of peak':>9}{'difference':>12}  repeats, docs/s")
    for name, row in result["sides"].items():
        repeats = " ".join(f"{speed:.1f}" for speed in row["repeats"])
        print(
            f"{name:<24}{row['documents_per_second']:>9.1f}{row['peak_gpu_mib'] or '':>9}{row['share_of_peak']:>9}"
            f"{row.get('largest_difference', ''):>12}  {repeats}"
        )
    for name, value in result["ratios"].items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    sys.exit(main())
