"""Mine hard negatives: first-stage candidates that are not relevant, far enough below the relevant ones for a model.

With --model, the model scores the candidates of every judged query first and keeps the scores beside --out, so that an
interrupted run resumes. A candidate scored above the relevant document minus a margin counts as a false negative.

  prorank mine --data DIR --split train --negatives 15 --out lists.jsonl
  prorank mine --data DIR --model runs/refined/best --absolute-margin 2 --out lists.jsonl
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prorank.cli._flags import add_own_documents
from prorank.cli._model import add_model_arguments, load_options, load_reranker, positive
from prorank.pipeline.candidates import lists_of, open_collection
from prorank.pipeline.checks import first_stage_known, models_known, target_writable

if TYPE_CHECKING:
    from prorank.data.collection import Collection
    from prorank.evaluate.systems import RerankerSystem

__all__ = ["add_arguments", "add_mining_arguments", "mine", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank mine``."""
    parser.add_argument(
        "--data", required=True, metavar="DATA", help="BEIR or TREC folder, JSON lines, irds:ID, stdlib"
    )
    parser.add_argument("--split", metavar="NAME", help="which judgments (default: train, or the only ones)")
    add_mining_arguments(parser)
    add_model_arguments(parser)


def add_mining_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that say what is mined, shared with ``prorank data mine``."""
    parser.add_argument("--first-stage", default="bm25", metavar="NAME", help="as in evaluate (default: %(default)s)")
    add_own_documents(parser)
    parser.add_argument(
        "--top-k", type=positive, default=100, metavar="N", help="candidates per query (default: %(default)s)"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="FILE.trec for all candidates, FILE.jsonl for lists"
    )
    parser.add_argument(
        "--negatives", type=positive, default=15, metavar="N", help="negatives per list (default: %(default)s)"
    )
    parser.add_argument("--rank-from", type=positive, default=1, metavar="N", help="first rank to use (default: 1)")
    parser.add_argument(
        "--absolute-margin", type=float, metavar="X", help="keep scores of at most the relevant document's - X"
    )
    parser.add_argument("--relative-margin", type=float, metavar="X", help="keep scores of at most (1 - X) times it")
    parser.add_argument(
        "--pick", choices=("top", "random"), default="top", help="which negatives to take (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of --pick random (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Mine with the first stage's scores, or with a model's where one is named."""
    from prorank.data.load import training_split

    if args.model is not None:
        models_known(load_options(args), [args.model])
    split = training_split(args.data, args.split)
    return mine(args, open_collection(args.data, split, args.own_documents), model=args.model)


def mine(args: argparse.Namespace, collection: Collection, model: str | None = None) -> int:
    """Write the candidates (``.trec``) or the lists (``.jsonl``)."""
    from prorank.data import write_run
    from prorank.data.jsonl import write_jsonl
    from prorank.data.negatives import mine_negatives

    out = Path(args.out)
    kind = out.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in ("trec", "jsonl"):
        raise ValueError(f"--out: {args.out} must end in .trec (candidates) or .jsonl (lists), plain or with .gz")
    if kind == "jsonl" and not collection.qrels:
        raise ValueError(f"--data: {collection.name} has no judgments, so nothing is known to be relevant")
    target_writable("--out", args.out)
    first_stage_known("--first-stage", args.first_stage)
    candidates = lists_of(collection, args.first_stage, args.top_k)
    name = args.first_stage.replace(":", "-")
    if model is not None:
        from prorank.pipeline.teachers import scored_candidates

        with_relevant = collection.without_own(
            {
                q: {**listed, **{d: float("-inf") for d in relevant(collection, q) if d not in listed}}
                for q, listed in candidates.items()
                if q in collection.qrels
            }
        )
        system = _system(args, model)
        candidates, name = scored_candidates(system, collection, with_relevant, out.with_suffix(".scores")), system.name
    if kind == "trec":
        write_run(out, candidates, name)
        return 0
    mined = mine_negatives(
        collection,
        candidates,
        negatives=args.negatives,
        rank_from=args.rank_from,
        rank_to=args.top_k,
        absolute_margin=args.absolute_margin,
        relative_margin=args.relative_margin,
        pick=args.pick,
        seed=args.seed,
    )
    judged = {q: {**relevant(collection, q), **dict.fromkeys(negatives, 0)} for q, negatives in mined.items()}
    queries = {query_id: collection.queries[query_id] for query_id in judged}
    scores = None
    if model is not None:  # kept for distillation
        scores = {q: {d: candidates[q][d] for d in documents if d in candidates[q]} for q, documents in judged.items()}
    write_jsonl(replace(collection, queries=queries, qrels=judged, candidates=None), out, scores)
    print(f"{len(judged)} queries, {sum(map(len, mined.values()))} negatives", file=sys.stderr)
    return 0


def relevant(collection: Collection, query_id: str) -> dict[str, int]:
    """The query's relevant documents that the corpus holds."""
    judgments = collection.qrels[query_id]
    return {doc_id: grade for doc_id, grade in judgments.items() if grade >= 1 and doc_id in collection.documents}


def _system(args: argparse.Namespace, model: str) -> RerankerSystem:
    from prorank.evaluate.systems import RerankerSystem

    return RerankerSystem(load_reranker(args, model), instruction=args.instruction)
