"""The analysis of `prorank analyze`, before and after a warmup, on queries that were not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prorank.data.collection import Collection
from prorank.evaluate.analyze import Analysis, analyze, draw_sample
from prorank.evaluate.analyze_report import write_analysis
from prorank.evaluate.record import append_record
from prorank.model.options import LoadOptions
from prorank.reranker import Reranker
from prorank.types import Run

__all__ = ["before_and_after"]


def before_and_after(
    base: LoadOptions,
    checkpoint: Path,
    collection: Collection,
    held_out_ids: Sequence[str],
    candidates: Run,
    *,
    threshold: int,
    pairs: int,
    out: Path,
) -> list[Analysis]:
    """Analyse the base and its checkpoint; ``out`` gets what ``prorank analyze --out`` writes.

    Args:
        base: how the base is loaded; the checkpoint too, with its own template.
        threshold: judgments of at least this are relevant.
        pairs: prompts asked of each; a tenth as many queries' candidates are scored for expressiveness.
    """
    part = replace(
        collection,
        queries={q: collection.queries[q] for q in held_out_ids},
        qrels={q: collection.qrels[q] for q in held_out_ids},
    )
    queries, top_k, seed = max(1, pairs // 10), 20, 0
    sample = draw_sample(
        part, candidates, pairs=pairs, queries=queries, top_k=top_k, min_relevance=threshold, seed=seed
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "record.jsonl").unlink(missing_ok=True)
    analyses: list[Analysis] = []
    record: Mapping[str, Any] = {}
    for name, options in (("before", base), ("after", replace(base, model=checkpoint, template=None))):
        analyses.append(analyze(Reranker.load(options), part, sample, name=name, min_relevance=threshold))
        payload = {
            "dataset": {"name": part.name, "split": part.split, "queries": "held out of warmup"},
            "sample": {
                "pairs": pairs, "queries": queries, "top_k": top_k, "min_relevance": threshold, "seed": seed,
            },
            **analyses[-1].payload(),
        }  # fmt: skip
        record = append_record(out / "record.jsonl", "analyze", payload)
    write_analysis(f"Before and after warmup on {collection.name}", analyses, record, out)
    return analyses
