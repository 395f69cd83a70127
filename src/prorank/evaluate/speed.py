"""How fast a reranker is, what it takes, and how far that is from what the machine can do.

Work is counted from the architecture, for real tokens only (padding and repeated prefixes are no work): two operations
for every weight of a linear layer and token, and attention's two products. The machine's peak is the fastest matrix
product that is measured beside it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["PRECISIONS", "Speed", "matrix_peak", "measure_speed", "operations", "own_peaks", "precision_of", "timed"]

PRECISIONS = ("float32", "bfloat16", "int8")

_PATIENCE = 1.0
"""Seconds of one matrix product above which a smaller one is measured."""

Jobs = Sequence[tuple[str, Sequence[str]]]
"""Queries with their documents."""


@dataclass(frozen=True)
class Speed:
    """One reranker on one set of queries."""

    model: str
    backend: str
    documents_per_second: float
    """From texts to margins, tokenisation included; median over repeats."""
    repeats: tuple[float, ...]
    """Documents a second of every repeat."""
    latency_p50: float
    """Seconds for one query's documents; median over queries and repeats."""
    latency_p95: float
    load_seconds: float
    """From nothing loaded to the first margin."""
    peak_mib: float
    """Largest resident memory of the process that did it."""
    gflop: float | None
    """Work of one repeat in 10^9 operations; None where the architecture is not known."""
    share_of_peak: float | None
    """Work a second over the measured peak of the precision."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def of(
        cls, model: str, backend: str, seconds: Sequence[Sequence[float]], documents: int, load_seconds: float,
        peak_mib: float, *, gflop: float | None = None, peak: float | None = None,
    ) -> Speed:  # fmt: skip
        """From what was timed.

        Args:
            seconds: of every repeat, a query each, as :func:`timed` gives them.
            documents: of all queries together.
            gflop: work of one repeat.
            peak: of the precision, 10^9 operations a second.
        """
        speeds = [documents / sum(row) for row in seconds]
        rate = statistics.median(speeds)
        return cls(
            model, backend, round(rate, 3), tuple(round(s, 3) for s in speeds),
            round(float(np.quantile(seconds, 0.5)), 4), round(float(np.quantile(seconds, 0.95)), 4),
            round(load_seconds, 2), round(peak_mib, 1), round(gflop, 2) if gflop else None,
            round(gflop * rate / documents / peak, 3) if gflop and peak else None,
        )  # fmt: skip


def timed(score: Callable[[str, list[str]], object], jobs: Jobs, repeats: int) -> list[list[float]]:
    """Seconds of every job in every repeat."""
    seconds = []
    for _ in range(repeats):
        row = []
        for query, documents in jobs:
            start = time.perf_counter()
            score(query, list(documents))
            row.append(time.perf_counter() - start)
        seconds.append(row)
    return seconds


def operations(config: Mapping[str, Any], prefix: int, lengths: Sequence[int]) -> float:
    """Operations for one query's documents: prefix once, each document's own tokens, output head left out.

    Args:
        config: of a transformers decoder with gated feed-forward layers (Llama, Qwen, Mistral, Gemma).
        prefix: tokens that all documents share.
        lengths: own tokens of each document.

    Raises:
        KeyError: the configuration is of another kind.
    """
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    keys = (config.get("num_key_value_heads") or heads) * size
    weights = layers * (2 * hidden * heads * size + 2 * hidden * keys + 3 * hidden * inner)
    own = np.asarray(lengths, dtype=np.float64)
    # A token at position p meets p + 1 keys, once for the scores and once for the values.
    met = prefix * (prefix + 1) / 2 + float((own * prefix + own * (own + 1) / 2).sum())
    return float(2.0 * weights * (prefix + float(own.sum())) + 4.0 * heads * size * layers * met)


def precision_of(backend: str) -> str:
    """The precision in a backend's name, for its peak."""
    return next((name for name in ("int8", "bfloat16", "float16") if name in backend), "float32")


def matrix_peak(precision: str, size: int = 1536, repeats: int = 8, *, device: str = "cpu") -> float:
    """10^9 operations a second of the best of some square matrix products, all threads (or the whole GPU).

    Where the processor has no instructions for a precision, a product of this size takes PyTorch many seconds: one of
    a quarter of the size goes first, and stays where the full size would take more than a second.
    """
    import torch

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
    product = torch._int_mm if precision == "int8" else torch.mm

    def best(size: int, repeats: int) -> float:
        a = torch.ones(size, size, dtype=kinds[precision], device=device)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            product(a, a)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    with torch.inference_mode():
        small = size // 4
        first = best(small, 3)
        if first * (size / small) ** 3 > _PATIENCE:
            return 2 * small**3 / first / 1e9
        return 2 * size**3 / best(size, repeats) / 1e9


def own_peaks(peaks: Mapping[str, float]) -> dict[str, float]:
    """Without the precisions that PyTorch only emulates here, slower than float32: nothing is a share of those."""
    return {name: peak for name, peak in peaks.items() if peak >= peaks["float32"]}


def measure_speed(options: Mapping[str, Any], jobs: Jobs, repeats: int, peaks: Mapping[str, float]) -> Speed:
    """Load and score in a process of its own, so that memory is its own.

    Args:
        options: ``model``, and arguments of :meth:`prorank.Reranker.from_pretrained`.
        jobs: scored once to warm up, then ``repeats`` times.
        peaks: precision -> :func:`matrix_peak`.

    Raises:
        ValueError: the model cannot be loaded; the message is the process's own.
    """
    task = json.dumps({"options": dict(options), "jobs": [[q, list(d)] for q, d in jobs], "repeats": repeats})
    done = subprocess.run(
        [sys.executable, "-m", "prorank.evaluate.speed_worker"],
        input=task, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0 or not done.stdout.strip():
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        raise ValueError(f"--model {options.get('model')}: {reason}")
    answer = json.loads(done.stdout.splitlines()[-1])
    gflop = None
    if answer["config"] is not None:
        gflop = sum(operations(answer["config"], prefix, lengths) for prefix, lengths in answer["lengths"]) / 1e9
    return Speed.of(
        answer["name"], answer["backend"], answer["seconds"], sum(len(d) for _, d in jobs), answer["load_seconds"],
        answer["peak_mib"], gflop=gflop, peak=peaks.get(precision_of(answer["backend"])),
    )  # fmt: skip
