"""Score candidates with a teacher for distillation; refine learns from the lists (losses kl, margin_mse).

mixture:A+2*B is the weighted mean of scores normalised within a query's candidates; several --teacher are fused by
reciprocal ranks. --pseudo-queries makes queries from titles or first sentences for a collection without any. Scores are
kept beside --out as they come, so that an interrupted run resumes.

  prorank teach --data DIR --teacher dense --teacher bm25 --out lists.jsonl
  prorank teach --data DIR --teacher mixture:splade-tiny+2*all-mpnet-base-v2 --top-k 100 --out lists.jsonl
  prorank teach --data DIR --teacher cross-encoder:FOLDER --first-stage fused --top-k 30 --out lists.jsonl
  prorank teach --data DIR --pseudo-queries title --teacher runs/refined/best --max-queries 2000 --out lists.jsonl
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from prorank.cli._flags import add_own_documents
from prorank.cli._model import add_model_arguments, load_options, positive
from prorank.pipeline.candidates import lists_of, open_collection
from prorank.pipeline.checks import first_stage_known, target_writable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank teach``."""
    parser.add_argument(
        "--data", required=True, metavar="DATA", help="BEIR or TREC folder, JSON lines, irds:ID, stdlib"
    )
    parser.add_argument("--split", metavar="NAME", help="which queries (default: train, or the only ones)")
    parser.add_argument(
        "--teacher", action="append", required=True, metavar="SPEC",
        help="splade-tiny, all-mpnet-base-v2, bm25, dense[:MODEL], fused, given[:NAME], a run file, a prorank model, a "
        "peer as in evaluate --baseline, or mixture:[WEIGHT*]SPEC+...; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--first-stage", default="bm25", metavar="NAME", help="where candidates come from (default: %(default)s)"
    )
    add_own_documents(parser)
    parser.add_argument(
        "--top-k", type=positive, default=50, metavar="N", help="candidates per query (default: %(default)s)"
    )
    parser.add_argument(
        "--pseudo-queries", choices=("title", "first-sentence"), help="take the queries from the documents themselves"
    )
    parser.add_argument("--max-queries", type=positive, metavar="N", help="use at most N queries")
    parser.add_argument(
        "--out", required=True, metavar="FILE.jsonl", help="where to write the lists (documents, judgments, scores)"
    )
    add_model_arguments(parser, model=False)


def run(args: argparse.Namespace) -> int:
    """Score, fuse, write."""
    out = Path(args.out)
    if not out.name.removesuffix(".gz").endswith(".jsonl"):
        raise ValueError(f"--out: {args.out} must end in .jsonl or .jsonl.gz")

    from prorank.data.first_stage import fuse
    from prorank.data.jsonl import write_jsonl
    from prorank.data.load import training_split
    from prorank.data.pseudo import pseudo_queries
    from prorank.pipeline.teachers import teacher_known, teacher_run

    target_writable("--out", out)
    first_stage_known("--first-stage", args.first_stage)
    options = load_options(args)
    for spec in args.teacher:
        teacher_known(spec, options)
    split = training_split(args.data, args.split)
    collection = open_collection(args.data, split, args.own_documents)
    if args.pseudo_queries:
        collection = pseudo_queries(collection, args.pseudo_queries, limit=args.max_queries)
    if not collection.queries:
        raise ValueError(f"--data: {collection.name} has no queries; --pseudo-queries takes them from the documents")
    kept = list(collection.queries)[: args.max_queries]
    collection = replace(
        collection,
        queries={q: collection.queries[q] for q in kept},
        qrels={q: collection.qrels[q] for q in kept if q in collection.qrels},
    )
    candidates = lists_of(collection, args.first_stage, args.top_k)
    scored = out.with_suffix(".scores")
    runs = [
        teacher_run(spec, collection, candidates, scored, options=options, instruction=args.instruction)
        for spec in args.teacher
    ]
    scores = runs[0] if len(runs) == 1 else fuse(runs)
    write_jsonl(collection, out, scores)
    documents = sum(map(len, scores.values()))
    print(f"{len(scores)} queries, {documents} scored documents: {out}", file=sys.stderr)
    return 0
