"""Measure rerankers on a collection: ranking quality with intervals and paired tests, and cost.

Writes TREC run files, per-query.tsv, record.jsonl, report.md and report.html to --out. Run the same command again to
resume an interrupted run.

  prorank evaluate --data nfcorpus --split test --model warm=runs/warmup/best --model smollm2-135m --out results/nf
  prorank evaluate --data my-folder --run first-stage.trec --model DIR --baseline bi-encoder --out results/mine
  prorank evaluate --data stdlib --split test --baseline openai-listwise:MODEL@http://localhost:8080/v1 --out results/x
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorank.cli._flags import add_own_documents
from prorank.cli._model import add_model_arguments, load_options, load_reranker, positive
from prorank.pipeline.candidates import lists_of, open_collection
from prorank.pipeline.checks import first_stage_known, folder_writable, installed, models_known, target_writable
from prorank.progress import system_progress

if TYPE_CHECKING:
    from prorank.evaluate.baselines import Baseline
    from prorank.evaluate.evaluation import Peer
    from prorank.evaluate.results import Evaluation
    from prorank.evaluate.systems import System
    from prorank.types import Run

__all__ = ["add_arguments", "add_data_arguments", "load_candidates", "named_model", "run"]


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that name a collection and its candidates, shared by several commands."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="BEIR or TREC folder, JSON-lines file of triples or lists, irds:ID, or stdlib",
    )
    parser.add_argument("--split", metavar="NAME", help="which judgments (default: the only ones)")
    parser.add_argument(
        "--first-stage",
        default="bm25",
        metavar="NAME",
        help="bm25, dense[:MODEL], sparse[:MODEL], fused, or given[:NAME] for the collection's own lists "
        "(default: %(default)s)",
    )
    parser.add_argument("--run", metavar="FILE", help="use this TREC run file as the first stage")
    add_own_documents(parser)
    parser.add_argument("--top-k", type=positive, default=100, metavar="N", help="candidates per query (default: 100)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank evaluate``."""
    add_data_arguments(parser)
    parser.add_argument(
        "--model",
        action="append",
        metavar="[LABEL=]NAME",
        help="a reranker or base, shown under its own name or LABEL; repeatable "
        "(default: the built-in reranker, or none beside a --baseline)",
    )
    parser.add_argument(
        "--cascade", action="append", default=[], choices=("fast", "faster"),
        help="also run every model with documents far from the top 10 stopped early; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="KIND[:MODEL]",
        help="a peer in the same table; repeatable: bi-encoder[:MODEL], sparse-encoder[:MODEL], "
        "mixture:[WEIGHT*]SPEC+..., cross-encoder:MODEL, yes-no:MODEL, run:FILE, given:NAME, "
        "cohere|jina|voyage:MODEL[@URL], openai-pointwise|openai-listwise:MODEL[@URL]; keys come from COHERE_API_KEY, "
        "JINA_API_KEY, VOYAGE_API_KEY, OPENAI_API_KEY, or with @URL from PRORANK_PEER_KEY",
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the results (default: results/COLLECTION-SPLIT)")
    parser.add_argument("--record", metavar="FILE", help="also append the record line to this file")
    parser.add_argument(
        "--measures",
        nargs="+",
        metavar="NAME",
        help="ir_measures names; the first one is what systems are compared by "
        "(default: nDCG@10 RR@10 AP R@100 P@10 Judged@10)",
    )
    parser.add_argument(
        "--min-relevance", type=positive, default=1, metavar="N", help="lowest grade that is relevant (TREC DL: 2)"
    )
    parser.add_argument("--against", metavar="SYSTEM", help="also compare with this system, by its name in the table")
    parser.add_argument("--max-queries", type=positive, metavar="N", help="use only the first N queries (for a trial)")
    parser.add_argument("--restart", action="store_true", help="discard an interrupted or older run")
    add_model_arguments(parser, model=False, several=True)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the table; report bad input before loading a model."""
    from prorank.evaluate.baselines import parse_baseline
    from prorank.evaluate.evaluation import Peer, check_against, evaluate
    from prorank.evaluate.metrics import DEFAULT_MEASURES, parse_measures
    from prorank.evaluate.record import append_line
    from prorank.evaluate.results import Options

    measures = args.measures or list(DEFAULT_MEASURES)
    parse_measures(measures, args.min_relevance)
    models = args.model or ([] if args.baseline else [None])
    _check(args, models)
    baselines = [parse_baseline(spec) for spec in args.baseline]
    systems = [_name(model, level) for model in models for level in ("exact", *args.cascade)]
    check_against(args.against, [_first_stage_name(args), *systems, *(baseline.name for baseline in baselines)])
    collection, candidates, name = load_candidates(args)
    peers = [
        Peer(_loader(args, model, level), name=_name(model, level))
        for model in models
        for level in ("exact", *args.cascade)
    ]
    peers += [_peer(baseline, collection, candidates, args.top_k) for baseline in baselines]
    out = Path(args.out or Path("results") / "-".join(filter(None, (collection.name, collection.split))))
    folder_writable("--out", out)
    with system_progress() as on_system:
        result = evaluate(
            collection,
            candidates,
            peers,
            out,
            first_stage=name,
            top_k=args.top_k,
            options=Options(measures=measures, min_relevance=args.min_relevance, against=args.against),
            restart=args.restart,
            on_system=on_system,
        )
    if args.record:
        append_line(args.record, result.record)
    _print(result, out)
    return 0


def _check(args: argparse.Namespace, models: Sequence[str | None]) -> None:
    """Check that everything named exists, before the first document is scored."""
    from prorank.early_exit.readouts import Cascade
    from prorank.model.checkpoint import checkpoint_folder
    from prorank.reranker import default_model

    installed("jinja2", extra="evaluate")
    if args.out:
        folder_writable("--out", args.out)
    target_writable("--record", args.record)
    names = [named_model(model)[1] for model in models]
    models_known(load_options(args), names)
    for name in names if args.cascade else ():
        if args.adapter is not None or Cascade.load(checkpoint_folder(name or default_model())) is None:
            raise ValueError(f"--cascade: {name or default_model()} has no read-outs; fit them with: prorank cascade")


def _name(model: str | None, level: str) -> str:
    """What the system will be called."""
    from prorank.reranker import default_model

    label, name = named_model(model)
    shown = label or Path(name or default_model()).name or str(name)
    return shown if level == "exact" else f"{shown}-{level}"


def load_candidates(args: argparse.Namespace) -> tuple[Any, Any, str]:
    """(collection, candidates, the first stage's name) that the data flags describe."""
    from dataclasses import replace

    if args.run is not None and not Path(args.run).is_file():
        raise ValueError(f"--run: there is no file {args.run}")
    first_stage_known("--first-stage", args.run or args.first_stage)
    collection = open_collection(args.data, args.split, args.own_documents)
    limit = getattr(args, "max_queries", None)
    if limit is not None:
        kept = list(collection.queries)[:limit]
        collection = replace(
            collection,
            queries={q: collection.queries[q] for q in kept},
            qrels={q: collection.qrels[q] for q in kept if q in collection.qrels},
        )
    candidates = lists_of(
        collection,
        args.run or args.first_stage,
        args.top_k,
        field="run" if args.run else "first_stage",
        remedy="--first-stage dense, or a run file with --run",
    )
    return collection, candidates, _first_stage_name(args)


def _first_stage_name(args: argparse.Namespace) -> str:
    from prorank.data.trec import run_name

    spec = Path(args.run or args.first_stage)
    name = run_name(spec) if spec.is_file() else str(args.first_stage)
    return name.removeprefix("given:")


def named_model(value: str | None) -> tuple[str | None, str | None]:
    """(label, model) of ``LABEL=MODEL``; the label is None where none is given, or where such a path exists."""
    found = re.fullmatch(r"([A-Za-z0-9._+-]+)=(.+)", value or "")
    return (found[1], found[2]) if found and not Path(found[0]).exists() else (None, value)


def _loader(args: argparse.Namespace, model: str | None, cascade: str = "exact") -> Callable[[], System]:
    def load() -> System:
        from prorank.evaluate.systems import RerankerSystem

        label, name = named_model(model)
        if label and cascade != "exact":
            label = f"{label}-{cascade}"
        return RerankerSystem(load_reranker(args, name), name=label, instruction=args.instruction, cascade=cascade)

    return load


def _peer(baseline: Baseline, collection: Any, candidates: Run, top_k: int) -> Peer:
    from prorank.data import first_stage
    from prorank.evaluate.evaluation import Peer

    if baseline.run is None:
        return Peer(baseline.load, name=baseline.name)
    name, source = baseline.run
    if source.startswith("mixture:"):
        from prorank.data.teacher import teacher_scores

        return Peer(None, (name, teacher_scores(source, collection, candidates)))
    return Peer(None, (name, first_stage(source, collection, max(top_k, 1000))))


def _print(result: Evaluation, out: Path) -> None:
    """Print the table; measures that do not fit the terminal are left to the report."""
    from rich.console import Console
    from rich.table import Table

    from prorank.evaluate.report import shown_p

    console = Console(width=None if sys.stdout.isatty() else 200)
    fixed = max(len(row.name) for row in result.rows) + 34  # difference, p, p50 and the gaps between them
    fit = max((console.width - fixed) // 10, 1)
    measures = list(result.options.measures)[:fit]
    table = Table(show_edge=False, pad_edge=False)
    for column in ("system", *measures, "difference", "p (Holm)", "p50"):
        table.add_column(column, justify="left" if column == "system" else "right", no_wrap=column != "system")
    for row in result.rows:
        cells = [f"{row.intervals[by].mean:.4f}" for by in measures]
        tested = row.versus.get(result.rows[0].name, {}).get(measures[0])
        difference = f"{tested.comparison.difference.mean:+.4f}" if tested else ""
        seconds = row.outcome.cost()["p50_s"]
        latency = f"{seconds:.3f} s" if seconds is not None else ""
        table.add_row(row.name, *cells, difference, shown_p(tested.p_holm) if tested else "", latency)
    console.print(f"{result.collection.name} {result.collection.split or ''}".strip(), highlight=False)
    console.print(table)
    console.print(f"{out / 'report.html'}", soft_wrap=True, highlight=False)
