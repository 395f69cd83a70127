"""Measure how fast models are on this machine: documents per second, latency, memory, share of the machine's peak.

Runs every model in its own process on the same queries and documents. Prints a table, then one JSON line.

  prorank bench
  prorank bench --model runs/mine --model runs/mine-int8 --data DATA/nfcorpus --peers
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorank.cli._model import positive
from prorank.pipeline.checks import collection_there, installed, model_known, target_writable

if TYPE_CHECKING:
    from prorank.evaluate.speed import Speed

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank bench``."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="built-in name, checkpoint or export; repeatable (default: the built-in reranker)",
    )
    parser.add_argument(
        "--peers", action="store_true", help="also measure sentence-transformers' CrossEncoder with the first model"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        default="stdlib",
        help="collection; its BM25 candidates are scored (default: %(default)s)",
    )
    parser.add_argument("--split", metavar="NAME", help="its split (default: the only one, or test)")
    parser.add_argument(
        "--queries", type=positive, default=4, metavar="N", help="number of queries (default: %(default)s)"
    )
    parser.add_argument(
        "--documents", type=positive, default=20, metavar="N", help="documents per query (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=positive, default=3, metavar="N", help="repeats of each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--max-length", type=positive, metavar="N", help="token limit of a whole prompt (default: the model's)"
    )
    parser.add_argument("--batch-tokens", type=positive, metavar="N", help="own tokens per forward pass")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the best available)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="precision of checkpoints (default: by the hardware)",
    )
    parser.add_argument("--record", metavar="FILE", help="append the record line to this file")


def run(args: argparse.Namespace) -> int:
    """Measure one after the other: two at once would slow each other down."""
    from prorank.evaluate.record import append_record, environment
    from prorank.evaluate.speed import PRECISIONS, matrix_peak, measure_speed, own_peaks
    from prorank.reranker import default_model

    models = args.model or [default_model()]
    _check(args, models)
    jobs = _jobs(args)
    peaks = {name: round(matrix_peak(name), 1) for name in PRECISIONS}
    rows: list[Speed] = []
    for model in models:
        print(f"measuring {model} ...", file=sys.stderr, flush=True)
        rows.append(measure_speed(_options(args, model), jobs, args.repeats, own_peaks(peaks)))
    if args.peers:
        print("measuring CrossEncoder ...", file=sys.stderr, flush=True)
        rows.append(_cross_encoder(args, models[0], jobs))
    documents = sum(len(texts) for _, texts in jobs)
    print(f"{len(jobs)} queries, {documents} documents of {args.data}; peak of a matrix product, 10^9 op/s: {peaks}")
    print(f"{'model':<28}{'backend':<24}{'docs/s':>8}{'p50 s':>8}{'p95 s':>8}{'load s':>8}{'MiB':>7}{'of peak':>9}")
    for row in rows:
        share = f"{row.share_of_peak:.0%}" if row.share_of_peak is not None else "-"
        print(
            f"{row.model:<28}{row.backend:<24}{row.documents_per_second:>8.2f}{row.latency_p50:>8.2f}"
            f"{row.latency_p95:>8.2f}{row.load_seconds:>8.1f}{row.peak_mib:>7.0f}{share:>9}"
        )
    payload = {
        "data": args.data, "queries": len(jobs), "documents": documents, "max_length": args.max_length,
        "peak_gop_per_second": peaks, "rows": [row.to_dict() for row in rows],
    }  # fmt: skip
    if args.record:
        append_record(args.record, "bench", payload)
    print(json.dumps({"bench": payload, "environment": environment()}))
    return 0


def _check(args: argparse.Namespace, models: list[str]) -> None:
    """Check that everything named exists, before the first model is measured."""
    target_writable("--record", args.record)
    collection_there("--data", args.data, args.split)
    manifests = [model_known("--model", name) for name in models]
    if args.peers:
        installed("sentence_transformers", extra="evaluate")
        if manifests[0] is not None and manifests[0].backend != "torch":
            raise ValueError(f"--peers: {models[0]} is an export, which CrossEncoder cannot load; name a checkpoint")


def _options(args: argparse.Namespace, model: str) -> dict[str, Any]:
    chosen = {name: getattr(args, name) for name in ("max_length", "batch_tokens", "threads", "device", "dtype")}
    if (Path(model) / "prorank.json").is_file():
        from prorank.model.manifest import read_manifest

        manifest = read_manifest(Path(model))
        if manifest is not None and manifest.backend != "torch":
            chosen |= {"device": None, "dtype": None}  # of an export both are fixed
    return {"model": model, **{name: value for name, value in chosen.items() if value is not None}}


def _jobs(args: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Queries with the first stage's best documents.

    Raises:
        ValueError: the data has no such queries.
    """
    from prorank.data.first_stage import first_stage
    from prorank.data.load import load_collection

    split = args.split or ("test" if args.data == "stdlib" else None)
    collection = load_collection(args.data, split)
    found = first_stage("given" if collection.candidates is not None else "bm25", collection, args.documents)
    full = [q for q, listed in found.items() if len(listed) == args.documents]
    if not full:
        raise ValueError(f"--documents: no query of {args.data} has {args.documents} candidates; give fewer")
    chosen = [full[i * len(full) // args.queries] for i in range(min(args.queries, len(full)))]
    return [(collection.queries[q].text, [collection.documents[d].content for d in found[q]]) for q in chosen]


def _cross_encoder(args: argparse.Namespace, model: str, jobs: list[tuple[str, list[str]]]) -> Speed:
    """The peer on the same weights, from the folder that we save for it, in its default settings."""
    import resource
    import time

    from prorank._optional import require
    from prorank.evaluate.speed import Speed, timed
    from prorank.reranker import Reranker

    sentence_transformers = require("sentence_transformers", extra="evaluate")
    with tempfile.TemporaryDirectory(prefix="prorank-") as scratch:
        whole = Reranker.from_pretrained(
            model, dtype="float32", max_length=args.max_length, long_documents="truncate"
        )  # the only way the peer knows
        folder = whole.save(Path(scratch) / "m")
        started = time.perf_counter()
        peer = sentence_transformers.CrossEncoder(str(folder), device=args.device or "cpu")
        peer.predict([(jobs[0][0], jobs[0][1][0])], show_progress_bar=False)
        loaded = time.perf_counter() - started

        def score(query: str, documents: list[str]) -> object:
            return peer.predict([(query, document) for document in documents], show_progress_bar=False)

        seconds = timed(score, jobs, args.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    backend = str(next(peer.parameters()).dtype)
    return Speed.of("CrossEncoder", backend, seconds, sum(len(texts) for _, texts in jobs), loaded, peak)
