"""Write a checkpoint in another engine's format, then compare its scores with the checkpoint's in float32.

The folder then works like any other model (--model DIR); prorank recognises its backend. The parity report is printed
and saved as DIR/parity.json.

  prorank export --to native-int8 --out runs/int8
  prorank rank --model runs/int8 --query "..." --documents passages.jsonl
  prorank export --to merged --out runs/merged --push owner/name --license apache-2.0
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from prorank.cli._model import add_model_arguments, load_options, load_reranker, positive
from prorank.pipeline.checks import backend_runs, collection_there, folder_writable, models_known

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank export``."""
    from prorank.export.targets import TARGETS

    parser.add_argument("--to", required=True, choices=TARGETS, help="format: " + ", ".join(TARGETS), metavar="FORMAT")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; replaces an earlier export")
    parser.add_argument(
        "--data", metavar="PATH", help="collection whose queries and BM25 candidates the parity report uses "
        "(default: the standard library's docstrings)",
    )  # fmt: skip
    parser.add_argument("--split", metavar="NAME", help="split of --data (default: the only one, or test)")
    parser.add_argument(
        "--parity-queries", type=positive, default=6, metavar="N", help="queries to compare (default: %(default)s)"
    )
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="then upload it to this repository of the Hugging Face hub (HF_TOKEN)"
    )
    parser.add_argument("--private", action="store_true", default=None, help="--push makes a private repository")
    card = parser.add_argument_group("model card")
    card.add_argument("--license", metavar="ID", help="the hub's name of it (default: the base's, where it is known)")
    card.add_argument("--datasets", nargs="+", default=(), metavar="ID", help="training data, by their ids on the hub")
    card.add_argument("--language", nargs="+", default=(), metavar="CODE", help="languages, as en or zh")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Load in float32, write, open the result, compare."""
    if args.dtype not in (None, "auto", "float32"):
        raise ValueError(f"--dtype: an export starts from float32 weights, got {args.dtype}; --to says the precision")
    from prorank.export.parity import compare, parity_texts, write_parity
    from prorank.export.targets import TARGETS, check_target, export, opened
    from prorank.model.card import CardFacts
    from prorank.model.hub import check_repository, push_folder

    args.dtype, args.device = "float32", "cpu"
    card = CardFacts(args.push, args.license, args.datasets, args.language)
    if args.push:
        check_repository("--push", args.push)
    elif args.private:
        raise ValueError("--private belongs to --push OWNER/NAME")
    check_target(args.to, Path(args.out))
    backend_runs(TARGETS[args.to].backend)  # opens what was written, for the parity report
    folder_writable("--out", args.out)
    (manifest,) = models_known(load_options(args), [args.model])
    if manifest is not None and manifest.backend != "torch":
        raise ValueError(f"--model: {args.model} is already an export; pass the checkpoint it was made from")
    if args.data:
        collection_there("--data", args.data, args.split)
    texts = _texts(args) if args.data else parity_texts(args.parity_queries)
    reference = load_reranker(args)
    source = Path(args.model) if args.model and args.model.endswith(".gguf") else None
    with warnings.catch_warnings():
        warnings.showwarning = _show
        out = export(reference, args.to, Path(args.out), source_gguf=source, card=card)
    print(f"{out}: written ({_megabytes(out)} MB); comparing scores ...", file=sys.stderr)
    parity = compare(reference, opened(args.to, out, args.threads), texts)
    write_parity(out, parity, reference.name)
    print(f"margins of {parity.pairs} pairs against {reference.name} in float32 (deviation {parity.spread:.3f}):")
    print(f"  largest difference   {parity.max_difference:.4f}")
    print(f"  mean difference      {parity.mean_difference:.4f}")
    print(f"  Kendall's tau        {parity.kendall_tau:.4f}")
    print(f"  same first document  {parity.same_best:.0%} of {len(texts)} queries")
    if args.push:
        print(f"uploading {_megabytes(out)} MB to {args.push} ...", file=sys.stderr)
        print(push_folder(out, args.push, private=args.private, message=f"prorank export --to {args.to}"))
    return 0


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"prorank export: warning: {message}", file=sys.stderr)


def _texts(args: argparse.Namespace) -> dict[str, list[str]]:
    from prorank.data.first_stage import first_stage
    from prorank.data.load import load_collection

    collection = load_collection(args.data, args.split)
    run_ = first_stage("given" if collection.candidates is not None else "bm25", collection, 20)
    texts = {
        collection.queries[q].text: [collection.documents[d].content for d in listed]
        for q, listed in run_.items()
        if len(listed) > 1
    }
    if not texts:
        raise ValueError(f"--data: {args.data} has no query with two candidates")
    return dict(list(texts.items())[: args.parity_queries])


def _megabytes(folder: Path) -> int:
    return round(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6)
