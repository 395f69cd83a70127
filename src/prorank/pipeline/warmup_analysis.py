"""The analysis of `prorank analyze`, before and after a warmup, on queries that were not trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from prorank.data.collection import Collection
from prorank.evaluate.analyze import Analysis
from prorank.training.warmup.config import WarmupConfig
from prorank.types import Run

__all__ = ["before_and_after"]


def before_and_after(
    base: str,
    checkpoint: Path,
    collection: Collection,
    held_out_ids: list[str],
    candidates: Run,
    config: WarmupConfig,
    *,
    pairs: int,
    out: Path,
    options: dict[str, Any],
) -> list[Analysis]:
    """Analyse the base and its checkpoint; ``out`` gets what ``prorank analyze --out`` writes.

    Args:
        pairs: prompts asked of each; a tenth as many queries' candidates are scored for expressiveness.
        options: the command's: ``template``, ``max_length``, ``device``.
    """
    from prorank.evaluate.analyze import analyze, draw_sample
    from prorank.evaluate.analyze_report import write_analysis
    from prorank.evaluate.record import append_record
    from prorank.reranker import Reranker

    part = replace(
        collection,
        queries={q: collection.queries[q] for q in held_out_ids},
        qrels={q: collection.qrels[q] for q in held_out_ids},
    )
    threshold = config.relevance_threshold or 1
    settings = {"pairs": pairs, "queries": max(1, pairs // 10), "top_k": 20, "min_relevance": threshold, "seed": 0}
    sample = draw_sample(part, candidates, **settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "record.jsonl").unlink(missing_ok=True)
    analyses, record = [], {}
    for name, model, template in (("before", base, options.get("template")), ("after", str(checkpoint), None)):
        reranker = Reranker.from_pretrained(
            model,
            template=template,
            device=options.get("device"),
            dtype=None if config.precision == "auto" else config.precision,
            max_length=int(options["max_length"]) if options.get("max_length") else None,
        )
        analyses.append(analyze(reranker, part, sample, name=name, min_relevance=threshold))
        payload = {
            "dataset": {"name": part.name, "split": part.split, "queries": "held out of warmup"},
            "sample": settings,
            **analyses[-1].payload(),
        }
        record = append_record(out / "record.jsonl", "analyze", payload)
    write_analysis(f"Before and after warmup on {collection.name}", analyses, record, out)
    return analyses
