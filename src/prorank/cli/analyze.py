"""Analyse models as the paper does: do they understand the prompt, and how far apart are their scores?

Asks several models the same prompts and shows them side by side: a base, its warmed-up and its refined form. Writes
analysis.md, analysis.html and record.jsonl (one line per model) to --out.

  prorank analyze --data nfcorpus --split test --model smollm2-135m --out report/
  prorank analyze --data stdlib --split test --model smollm2-135m --model warm=runs/warmup/best --out report/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorank.cli._model import add_model_arguments, load_options, load_reranker, positive
from prorank.cli.evaluate import add_data_arguments, load_candidates, named_model
from prorank.pipeline.checks import folder_writable, installed, models_known, target_writable
from prorank.progress import progress_bar

if TYPE_CHECKING:
    from prorank.evaluate.analyze import Analysis

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank analyze``."""
    add_data_arguments(parser)
    parser.add_argument(
        "--model",
        action="append",
        metavar="[LABEL=]NAME",
        help="a reranker or base, under its own name or LABEL; repeatable (default: the built-in reranker)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the report")
    parser.add_argument("--record", metavar="FILE", help="also append the record lines to this file")
    parser.add_argument(
        "--pairs", type=positive, default=200, metavar="N", help="number of prompts (default: %(default)s)"
    )
    parser.add_argument(
        "--negatives",
        choices=("first-stage", "random"),
        default="first-stage",
        help="hard or easy negatives (default: %(default)s)",
    )
    parser.add_argument(
        "--queries",
        type=positive,
        default=20,
        metavar="N",
        help="queries to measure expressiveness on (default: %(default)s)",
    )
    parser.add_argument(
        "--candidates", type=positive, default=30, metavar="N", help="candidates per query (default: %(default)s)"
    )
    parser.add_argument(
        "--min-relevance",
        type=positive,
        default=1,
        metavar="N",
        help="lowest grade that counts as relevant (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draw (default: %(default)s)")
    add_model_arguments(parser, model=False)


def run(args: argparse.Namespace) -> int:
    """Analyse each model, print the sentences and where the report is."""
    from prorank.evaluate.analyze import analyze, draw_sample
    from prorank.evaluate.analyze_report import write_analysis
    from prorank.evaluate.record import append_record

    installed("jinja2", "torch", extra="evaluate")
    if args.backend == "auto":
        args.backend = "torch"  # whose models give the logits of the whole vocabulary
    folder_writable("--out", args.out)
    target_writable("--record", args.record)
    names = [named_model(model)[1] for model in args.model or [None]]
    for name, manifest in zip(names, models_known(load_options(args), names), strict=True):
        if manifest is not None and manifest.backend != "torch":
            raise ValueError(
                f"--model: {name} is an export, which computes no full-vocabulary logits; analyse the checkpoint it "
                "was made from"
            )
    collection, candidates, first_stage = load_candidates(args)
    settings = {
        "pairs": args.pairs,
        "queries": args.queries,
        "top_k": args.candidates,
        "negatives": args.negatives,
        "min_relevance": args.min_relevance,
        "seed": args.seed,
    }
    sample = draw_sample(collection, candidates, **settings)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "record.jsonl").unlink(missing_ok=True)
    total = len(sample.pairs) + sum(map(len, sample.lists.values()))
    analyses: list[Analysis] = []
    record: Mapping[str, Any] = {}
    for model in args.model or [None]:
        label, source = named_model(model)
        reranker = load_reranker(args, source)
        name = _unique(label or reranker.name, [analysis.name for analysis in analyses])
        with progress_bar(name, total, shown=sys.stderr.isatty()) as on_done:
            found = analyze(
                reranker,
                collection,
                sample,
                name=name,
                instruction=args.instruction,
                min_relevance=args.min_relevance,
                on_done=on_done,
            )
        analyses.append(found)
        payload = {
            "dataset": {
                "name": collection.name,
                "split": collection.split,
                "documents_sha256": collection.documents_hash,
                "qrels_sha256": collection.qrels_hash,
            },
            "sample": {**settings, "first_stage": first_stage, "first_stage_top_k": args.top_k},
            **found.payload(),
        }
        for target in [out / "record.jsonl", *([Path(args.record)] if args.record else [])]:
            record = append_record(target, "analyze", payload)
    title = f"Analysis on {collection.name} {collection.split or ''}".strip()
    write_analysis(title, analyses, record, out)
    text = (out / "analysis.md").read_text("utf-8")
    print("\n".join(line[2:] for line in text.splitlines() if line.startswith("- ")))
    print(out / "analysis.html")
    return 0


def _unique(name: str, taken: list[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
