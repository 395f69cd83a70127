"""Stage 2: teach a (warmed-up) model to order documents finely by its margin.

Goes on from a checkpoint of warmup with the same adapter, or from a plain base with a fresh one. Ctrl-C saves, and the
same command goes on from there. Settings come from --config and from --refine.NAME flags.

  prorank refine --model runs/warmup/best --data DATA/nfcorpus --out runs/refined
  prorank refine --config recipes/refine/smollm2-135m-cpu.toml --refine.losses "[softmax=1, kl=1]" --teacher fused
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorank.cli._model import positive
from prorank.config import add_config_arguments, build_config, config_dict, overrides, read_config, run_options
from prorank.pipeline.candidates import add_own_documents
from prorank.pipeline.checks import training_ready
from prorank.training.refine.config import TEACHER_LOSSES, RefineConfig

if TYPE_CHECKING:
    from prorank.pipeline.datasets import Prepared
    from prorank.reranker import Reranker
    from prorank.training.refine.lists import ListSource
    from prorank.training.refine.loop import OnEval, RefineResult

__all__ = ["add_arguments", "held_out_evaluation", "run", "train"]

_RUN_KEYS = (
    "model", "data", "split", "out", "first_stage", "teacher", "instruction", "exclude", "template", "max_length",
    "device", "threads", "records", "eval_top_k", "own_documents",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank refine``."""
    parser.add_argument("--config", metavar="FILE", help="TOML or YAML: flags, a [refine] table, [[datasets]] tables")
    parser.add_argument(
        "--model", metavar="NAME", help="checkpoint of warmup, built-in name, folder or hub id (default: smollm2-135m)"
    )
    parser.add_argument(
        "--data", metavar="PATH", action="append",
        help="collection: BEIR or TREC folder, JSON lines of lists or triples, irds:ID, stdlib; may be repeated",
    )  # fmt: skip
    parser.add_argument("--split", metavar="NAME", help="which judgments (default: train, or the only ones)")
    parser.add_argument("--out", metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--first-stage", metavar="SPEC",
        help="where rivals come from: bm25, dense, fused, given, a run file (default: the data's own lists, or bm25)",
    )  # fmt: skip
    add_own_documents(parser)
    parser.add_argument(
        "--teacher", metavar="SPEC", help="whose scores kl and margin_mse learn from: as --first-stage, or teach's file"
    )
    parser.add_argument("--instruction", metavar="TEXT", help="what relevance means in this data")
    parser.add_argument(
        "--exclude", metavar="PATH[:SPLIT]", action="append",
        help="an evaluation set: queries and passages that it shares with the training data are dropped; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--template", metavar="NAME", help="template preset or JSON file (default: the checkpoint's, or derived)"
    )
    parser.add_argument(
        "--max-length", type=positive, metavar="N", help="tokens of a prompt at inference (default: the model's or 512)"
    )
    parser.add_argument(
        "--eval-top-k", type=positive, metavar="N", help="candidates reranked at an evaluation (default: 20)"
    )
    parser.add_argument("--device", help="cpu or cuda (default: the best there is)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument(
        "--records", metavar="FILE", help="also append the record line here (default: DIR/records.jsonl)"
    )
    add_config_arguments(parser, RefineConfig, "refine")


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked before the model is loaded, train, report."""
    file = read_config(args.config) if args.config else {}
    options = run_options(args, file, _RUN_KEYS, ("refine", "datasets"))
    config = build_config(RefineConfig, "refine", file, overrides(args, "refine"))
    if not options["out"]:
        raise ValueError("--out is missing: give it here or in --config")

    from prorank.pipeline.datasets import datasets_there, load_dataset, load_excluded, read_specs

    common = {name: options[name] for name in ("split", "first_stage", "teacher", "instruction", "own_documents")}
    specs = read_specs(args.data, file, common)
    training_ready(options, options["out"], "ir_measures")
    datasets_there(specs)
    evaluation = load_excluded(options["exclude"] or [])
    need = config.hard_negatives > 0
    prepared = [load_dataset(spec, config.depth, evaluation, need_candidates=need) for spec in specs]
    train(prepared, options, config)
    return 0


def train(prepared: Sequence[Prepared], options: Mapping[str, Any], config: RefineConfig) -> RefineResult:
    """Refine ``options["model"]``; leaves checkpoints, log, record and report in ``options["out"]``."""
    from prorank.pipeline.datasets import list_source
    from prorank.training.refine.lists import Mixture

    sources = [list_source(one, config) for one in prepared]
    _check_targets(config, prepared, sources)
    mixture = Mixture(sources, config)
    for source, share in zip(sources, mixture.shares, strict=True):
        name, queries = source.collection.name, source.train_queries
        print(f"{name}: {queries} queries, {source.size} lists an epoch, {share:.0%} of the draws", file=sys.stderr)

    import torch

    from prorank.model.base import load_base
    from prorank.model.checkpoint import check_base, read_adapter
    from prorank.prompt.derive import resolve_template
    from prorank.prompt.encoder import PromptEncoder
    from prorank.training.refine.loop import refine

    if options["threads"]:
        torch.set_num_threads(int(options["threads"]))
    base_name, adapter, manifest = read_adapter(options["model"] or "smollm2-135m")
    base = load_base(base_name)
    if adapter is not None:
        check_base(adapter, manifest, base_name, base.sha256)
    chosen = options["template"]
    template = manifest.template if manifest and not chosen else resolve_template(chosen, base.tokenizer)
    length = int(options["max_length"] or (manifest.max_length if manifest else 0) or 512)
    reading: Any = manifest.long_documents if manifest else "truncate"
    encoder = PromptEncoder(base.tokenizer, template, max_length=length, long_documents=reading)
    out = Path(options["out"])
    result = refine(
        base, encoder, mixture, config, out, base_name=base_name, adapter=adapter, device=options["device"],
        on_eval=held_out_evaluation(sources, config.held_out_queries, int(options["eval_top_k"] or 20)),
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")) == 0:
        _finish(result, out, config, options, sources, base.sha256)
    return result


def held_out_evaluation(sources: Sequence[ListSource], queries: int, top_k: int) -> OnEval:
    """Mean nDCG@10 over held-out queries of every source (the same number of each, so each weighs the same).

    Returns:
        A function of the reranker; its values: ``nDCG@10``, and with several sources ``nDCG@10/NAME``.
    """
    from prorank.evaluate.metrics import measure, ranked

    each = max(1, queries // len(sources))
    chosen = [(s, ids) for s in sources if (ids := _judged_held_out(s)[:each])]

    def on_eval(reranker: Reranker) -> Mapping[str, float]:
        values = {}
        for source, query_ids in chosen:
            collection = source.collection
            run_ = {}
            for query_id in query_ids:
                doc_ids = list(source.candidates[query_id])[:top_k]
                texts = [collection.documents[d].content for d in doc_ids]
                margins = reranker.margins(collection.queries[query_id].text, texts, instruction=source.instruction)
                run_[query_id] = ranked(doc_ids, margins)
            qrels = {query_id: collection.qrels[query_id] for query_id in query_ids}
            values[f"nDCG@10/{collection.name}"] = measure(run_, qrels, ["nDCG@10"]).mean("nDCG@10")
        mean = sum(values.values()) / len(values) if values else float("nan")
        return {"nDCG@10": mean, **(values if len(values) > 1 else {})}

    return on_eval


def first_stage_scores(sources: Sequence[ListSource], queries: int) -> Mapping[str, float]:
    """What the candidates' own order scores on the very queries of :func:`held_out_evaluation`."""
    from prorank.evaluate.metrics import measure

    each = max(1, queries // len(sources))
    values = []
    for source in sources:
        ids = _judged_held_out(source)[:each]
        if ids:
            run_ = {q: dict(source.candidates[q]) for q in ids}
            qrels = {q: source.collection.qrels[q] for q in ids}
            values.append(measure(run_, qrels, ["nDCG@10"]).mean("nDCG@10"))
    return {"nDCG@10": sum(values) / len(values)} if values else {}


def _judged_held_out(source: ListSource) -> list[str]:
    """Held-out queries with judgments and candidates, in an order that does not depend on the file's."""
    import hashlib

    qrels = source.collection.qrels
    ids = [q for q in source.held_out_ids if qrels.get(q) and source.candidates.get(q)]
    return sorted(ids, key=lambda q: hashlib.sha256(q.encode()).hexdigest())


def _check_targets(config: RefineConfig, prepared: Sequence[Prepared], sources: Sequence[ListSource]) -> None:
    """Every loss must find something to read."""
    for name in config.loss_weights():
        if name in TEACHER_LOSSES and all(one.teacher is None for one in prepared):
            raise ValueError(f"--refine.losses: {name} learns from a teacher's scores; give --teacher")
    if config.false_negative_margin is not None and all(one.teacher is None for one in prepared):
        raise ValueError("--refine.false_negative_margin: needs a teacher's scores; give --teacher")
    if config.hard_negatives and not any(source.candidates for source in sources):
        raise ValueError("--refine.hard_negatives: no candidates to draw them from; give --first-stage")


def _finish(
    result: RefineResult,
    out: Path,
    config: RefineConfig,
    options: Mapping[str, Any],
    sources: Sequence[ListSource],
    base_sha256: str,
) -> None:
    """The record line, the report and a summary for people."""
    from prorank.evaluate.record import append_record
    from prorank.files import sha256_file
    from prorank.pipeline.refine_report import write_report
    from prorank.training.runlog import read_log

    payload = {
        "datasets": [
            {"name": s.collection.name, "split": s.collection.split, "lists": s.size, "weight": s.weight}
            for s in sources
        ],
        "model": options["model"] or "smollm2-135m",
        "base_sha256": base_sha256,
        "config": config_dict(config),
        "steps": result.steps,
        "documents": result.documents,
        "training_seconds": round(result.seconds, 1),
        "documents_per_second": round(result.documents / max(result.seconds, 1e-9), 2),
        "stopped": result.stopped,
        "held_out_queries": config.held_out_queries,
        "first_stage": {k: round(v, 4) for k, v in first_stage_scores(sources, config.held_out_queries).items()},
        "before": {k: round(v, 4) for k, v in result.before.items()},
        "after": {k: round(v, 4) for k, v in result.after.items()},
        "best_step": result.best_step,
        "adapter_sha256": {p.name: sha256_file(p) for p in sorted(result.best.glob("*.safetensors"))},
    }
    record = append_record(out / "records.jsonl", "refine", payload)
    if options["records"]:
        append_record(options["records"], "refine", payload)
    write_report(out / "report.html", read_log(out / "log.jsonl"), record)
    first = payload["first_stage"].get("nDCG@10", float("nan"))
    for name, value in result.after.items():
        shown = f"   (first stage {first:.4f})" if name == "nDCG@10" else ""
        print(f"{name:26} {result.before.get(name, float('nan')):8.4f} -> {value:.4f}{shown}")
    print(f"{result.stopped} after {result.steps} steps; best: {result.best} (step {result.best_step})")
