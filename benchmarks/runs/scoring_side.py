"""One side of `benchmarks/runs/scoring.py`: a process that scores what it is told, and says how long it took.

It must run in another package's virtual environment, so it imports nothing of prorank unless it is prorank's side.
It reads one JSON line a task from standard input and answers with one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Score = Callable[[str, list[str]], "list[float]"]
"""(query, documents) -> scores in input order."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # what libraries print must not mix with our answers
    os.dup2(2, 1)
    options = json.loads(sys.argv[1])
    imported, load = SIDES[options["kind"]]()
    baseline = memory("VmHWM")
    score, facts = load(options)
    for query, documents in options["warm"]:
        score(query, documents)
    print(json.dumps({"imported": imported, "import_mib": baseline, **facts}), file=answers, flush=True)
    for line in sys.stdin:
        jobs = json.loads(line)
        start = time.perf_counter()
        scores = [score(query, documents) for query, documents in jobs]
        seconds = time.perf_counter() - start
        answer = {"seconds": seconds, "peak_mib": memory("VmHWM"), "scores": scores}
        print(json.dumps(answer), file=answers, flush=True)


def memory(field: str) -> float:
    """A line of /proc/self/status in MiB; VmHWM is the peak of resident memory so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"no {field} in /proc/self/status")


def ordered(results: list[Any], score: str) -> list[float]:
    """Scores of a ranked list, back in input order."""
    values = [0.0] * len(results)
    for result in results:
        values[result.index] = float(getattr(result, score))
    return values


def prorank_side() -> tuple[list[str], Callable[[dict[str, Any]], tuple[Score, dict[str, Any]]]]:
    import torch
    import transformers

    import prorank
    from prorank import Reranker

    def load(options: dict[str, Any]) -> tuple[Score, dict[str, Any]]:
        model = Reranker.from_pretrained(options["folder"], **options["arguments"])

        def score(query: str, documents: list[str]) -> list[float]:
            return ordered(model.rank(query, documents), "margin")

        return score, {"backend": model.backend.name, "threads": torch.get_num_threads()}

    return versions(prorank, torch, transformers), load


def export_side() -> tuple[list[str], Callable[[dict[str, Any]], tuple[Score, dict[str, Any]]]]:
    import prorank
    from prorank import Reranker

    def load(options: dict[str, Any]) -> tuple[Score, dict[str, Any]]:
        # Neither an export nor our own engine needs PyTorch or transformers.
        model = Reranker.from_pretrained(options["folder"], **options.get("arguments", {}))

        def score(query: str, documents: list[str]) -> list[float]:
            return ordered(model.rank(query, documents), "margin")

        return score, {"backend": model.backend.name, "threads": os.cpu_count()}

    return versions(prorank), load


def mxbai_side() -> tuple[list[str], Callable[[dict[str, Any]], tuple[Score, dict[str, Any]]]]:
    import mxbai_rerank
    import torch
    import transformers

    def load(options: dict[str, Any]) -> tuple[Score, dict[str, Any]]:
        model = mxbai_rerank.MxbaiRerankV2(options["folder"])
        model.max_length = options["max_length"] - model.predefined_length  # theirs counts content only
        facts = {"backend": str(model.dtype), "threads": torch.get_num_threads(), "content_length": model.max_length}

        def score(query: str, documents: list[str]) -> list[float]:
            return ordered(model.rank(query, documents, top_k=len(documents)), "score")

        return score, facts

    return versions(mxbai_rerank, torch, transformers), load


def cross_encoder_side() -> tuple[list[str], Callable[[dict[str, Any]], tuple[Score, dict[str, Any]]]]:
    import sentence_transformers
    import torch
    import transformers

    def load(options: dict[str, Any]) -> tuple[Score, dict[str, Any]]:
        model = sentence_transformers.CrossEncoder(options["folder"], device="cpu")

        def score(query: str, documents: list[str]) -> list[float]:
            pairs = [(query, document) for document in documents]
            return [float(value) for value in model.predict(pairs, show_progress_bar=False)]

        facts = {"backend": str(next(model.parameters()).dtype), "threads": torch.get_num_threads()}
        return score, facts

    return versions(sentence_transformers, torch, transformers), load


def versions(*modules: Any) -> list[str]:
    from importlib import metadata

    names = [module.__name__.replace("_", "-") for module in modules]
    return [f"{name} {metadata.version(name)}" for name in names]


SIDES = {"prorank": prorank_side, "export": export_side, "mxbai": mxbai_side, "cross-encoder": cross_encoder_side}

if __name__ == "__main__":
    main()
