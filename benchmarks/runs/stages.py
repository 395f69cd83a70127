"""What each stage of training does to prompt understanding and expressiveness, on pairs of the measuring collections.

    python -m benchmarks.runs.stages --append benchmarks/results/stages.jsonl

Base, warmup-only and refined model answer the very same prompts: --pairs of each collection, half of them relevant, the
others from the first stage; expressiveness comes from the first stage's candidates of --queries queries. It is what
`prorank analyze` computes, a record line a stage and collection. Lines go to --out as they are done, and are not
computed again. Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.runs.collections import DATA
from benchmarks.runs.results import COLLECTIONS, MODELS, present, shipped
from benchmarks.tables.results import TITLES, UNDERSTANDING
from benchmarks.tables.writer import Record, table

if TYPE_CHECKING:
    from prorank.reranker import Reranker

FIRST_STAGE_TOP_K = 100


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200, metavar="N", help="prompts a collection (default: 200)")
    parser.add_argument("--queries", type=int, default=20, metavar="N", help="for expressiveness (default: 20)")
    parser.add_argument("--candidates", type=int, default=30, metavar="N", help="of each of them (default: 30)")
    parser.add_argument("--collections", nargs="+", choices=list(COLLECTIONS), default=list(COLLECTIONS))
    parser.add_argument("--stages", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of a prompt (default: each model's own)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    parser.add_argument("--device", help="cpu or cuda (default: the best there is)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the collections")
    parser.add_argument("--out", type=Path, default=Path("runs/stages.jsonl"), help="default: %(default)s")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the record lines here too, at the end")
    args = parser.parse_args(argv)
    try:
        lines = run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"stages: error: {error}", file=sys.stderr)
        return 2
    print(shown(lines))
    if args.append is not None:
        from prorank.evaluate.record import append_line

        for line in lines:
            append_line(args.append, line)
    found = {
        f"{r['dataset']['name']} {r['stage']}": {name: r["understanding"][name]["value"] for name in UNDERSTANDING}
        for r in lines
    }
    print(json.dumps({"benchmark": "stages", "pairs": args.pairs, "stages": found}))
    return 0


def run(args: argparse.Namespace) -> list[Record]:
    """The lines of every stage and collection asked for; each model is loaded once."""
    from prorank.data import first_stage, load_collection
    from prorank.evaluate.analyze import draw_sample
    from prorank.reranker import Reranker

    asked = []
    for name in present(args.collections, args.data):
        split, spec, min_relevance = COLLECTIONS[name]
        collection = load_collection(args.data / name, split)
        settings = {
            "pairs": args.pairs, "queries": args.queries, "top_k": args.candidates, "negatives": "first-stage",
            "min_relevance": min_relevance, "seed": 0,
        }  # fmt: skip
        sample = draw_sample(collection, first_stage(spec, collection, FIRST_STAGE_TOP_K), **settings)
        asked.append((collection, sample, {**settings, "first_stage": spec, "first_stage_top_k": FIRST_STAGE_TOP_K}))
    lines = []
    for stage in shipped(args.stages):
        options = {"max_length": args.max_length, "device": args.device, "threads": args.threads}
        model = Reranker.from_pretrained(MODELS[stage], dtype=args.dtype, **options)
        lines += [line(model, stage, *one, args.out) for one in asked]
    return lines


def line(model: Reranker, stage: str, collection: Any, sample: Any, settings: dict[str, Any], out: Path) -> Record:
    """One stage on one collection, from the file where it has been done."""
    from prorank.evaluate.analyze import analyze
    from prorank.evaluate.record import append_record, read_records

    dataset = {
        "name": collection.name,
        "split": collection.split,
        "documents_sha256": collection.documents_hash,
        "qrels_sha256": collection.qrels_hash,
    }
    wanted = {"stage": stage, "dataset": dataset, "sample": settings}
    for record in read_records(out, "stages") if out.is_file() else []:
        same = record["description"]["fingerprint"] == model.fingerprint  # weights, prompt, limits and precision
        if same and all(record[key] == value for key, value in wanted.items()):
            return record
    print(f"{collection.name}: {stage}", file=sys.stderr, flush=True)
    found = analyze(model, collection, sample, name=stage, min_relevance=settings["min_relevance"])
    return append_record(out, "stages", {**wanted, **found.payload()})


def shown(lines: Sequence[Record]) -> str:
    """Prompt understanding with its intervals, and the first measures of expressiveness."""
    rows = []
    for record in lines:
        measured = [record["understanding"][name] for name in UNDERSTANDING]
        texts = [f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in measured]
        expressive = [f"{record['expressiveness'][name]:.4g}" for name in ("spread", "distinct_share", "query_auc")]
        rows.append([record["dataset"]["name"], TITLES[record["stage"]], *texts, *expressive])
    heads = ["format success", "balanced accuracy", "AUC", "spread", "distinct", "AUC within queries"]
    return table(["collection", "stage", *heads], rows)


if __name__ == "__main__":
    raise SystemExit(main())
