"""Stage 1: teach a base model the relevance prompt by GRPO (prompt warmup).

The result is a checkpoint (a LoRA adapter by default) that rank, evaluate, analyze and refine take as it is. Ctrl-C
saves, and the same command goes on from there. Settings come from --config and from --warmup.NAME flags.

  prorank warmup --model smollm2-135m --data DATA/msmarco-sample --out runs/warmup
  prorank warmup --config recipes/warmup/smollm2-135m-cpu.toml --data DATA/msmarco-sample --warmup.group_size 16
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorank.cli._model import positive
from prorank.config import add_config_arguments, build_config, config_dict, overrides, read_config, run_options
from prorank.pipeline.candidates import add_own_documents, lists_of, open_collection
from prorank.pipeline.checks import collection_there, first_stage_known, training_ready
from prorank.training.warmup.config import WarmupConfig

if TYPE_CHECKING:
    from prorank.data.collection import Collection
    from prorank.training.warmup.loop import WarmupResult
    from prorank.training.warmup.prompts import PromptSampler
    from prorank.types import Run

__all__ = ["add_arguments", "run", "train"]

_RUN_KEYS = (
    "model", "data", "split", "out", "first_stage", "template", "max_length", "device", "threads", "records",
    "analysis_pairs", "own_documents",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank warmup``."""
    parser.add_argument("--config", metavar="FILE", help="TOML or YAML with the flags below and a [warmup] table")
    parser.add_argument(
        "--model", metavar="NAME", help="base: built-in name, folder, hub id or .gguf (default: smollm2-135m)"
    )
    parser.add_argument(
        "--data", metavar="PATH", help="collection with judgments: BEIR or TREC folder, JSON lines, irds:ID"
    )
    parser.add_argument("--split", metavar="NAME", help="which judgments (default: train, or the only ones)")
    parser.add_argument("--out", metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--first-stage", metavar="SPEC", help="where hard negatives come from: bm25, dense, a run file (default: bm25)"
    )
    add_own_documents(parser)
    parser.add_argument(
        "--template", metavar="NAME", help="template preset or JSON file (default: derived from the base)"
    )
    parser.add_argument(
        "--max-length", type=positive, metavar="N", help="tokens of a prompt at inference (default: 512)"
    )
    parser.add_argument("--device", help="cpu or cuda (default: the best there is)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument(
        "--records", metavar="FILE", help="also append the record line here (default: DIR/records.jsonl)"
    )
    parser.add_argument(
        "--analysis-pairs", type=int, metavar="N",
        help="held-out prompts of the analysis before and after; 0 leaves it out (default: 60)",
    )  # fmt: skip
    add_config_arguments(parser, WarmupConfig, "warmup")


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked before the model is loaded, train, report."""
    file = read_config(args.config) if args.config else {}
    options = run_options(args, file, _RUN_KEYS, ("warmup",))
    config = build_config(WarmupConfig, "warmup", file, overrides(args, "warmup"))
    for name in ("data", "out"):
        if not options.get(name):
            raise ValueError(f"--{name} is missing: give it here or in --config")
    pairs = 60 if options["analysis_pairs"] is None else int(options["analysis_pairs"])
    if pairs < 0 or pairs == 1:
        raise ValueError(f"--analysis-pairs: expected 0 or at least 2, got {pairs}")

    from prorank.data.load import training_split

    training_ready(options, options["out"])
    collection_there("--data", options["data"], options["split"])
    if options["first_stage"]:
        first_stage_known("--first-stage", options["first_stage"])
    split = training_split(options["data"], options.get("split"))
    collection = open_collection(options["data"], split, options["own_documents"])
    train(collection, {**options, "analysis_pairs": pairs}, config)
    return 0


def train(collection: Collection, options: dict[str, Any], config: WarmupConfig) -> WarmupResult:
    """Warm up on a collection; leaves checkpoints, log, record and report in ``options["out"]``."""
    from prorank.training.warmup.prompts import PromptSampler

    PromptSampler(collection, _easy(config))  # bad judgments are found before the first stage is computed
    candidates = _candidates(options, collection, config)
    sampler = PromptSampler(collection, config, candidates)

    import torch

    from prorank.model.base import load_base
    from prorank.prompt.derive import resolve_template
    from prorank.prompt.encoder import PromptEncoder
    from prorank.training.warmup.loop import warmup

    if options.get("threads"):
        torch.set_num_threads(int(options["threads"]))
    name = options.get("model") or "smollm2-135m"
    base = load_base(name)
    template = resolve_template(options.get("template"), base.tokenizer)
    encoder = PromptEncoder(base.tokenizer, template, max_length=int(options.get("max_length") or 512))
    out = Path(options["out"])
    result = warmup(base, encoder, sampler, config, out, base_name=name, device=options.get("device"))
    sha256 = base.sha256
    del base  # room for the two models of the analysis
    if int(os.environ.get("RANK", "0")) == 0:
        _finish(result, out, config, options, sampler, candidates, sha256)
    return result


def _easy(config: WarmupConfig) -> WarmupConfig:
    from dataclasses import replace

    return replace(config, hard_negatives=0)


def _candidates(options: dict[str, Any], collection: Any, config: WarmupConfig) -> Any:
    """The first stage's lists: hard negatives, and held-out ones to be reported apart; without bm25s neither."""
    spec = options.get("first_stage") or "bm25"
    try:
        return lists_of(collection, spec, config.hard_rank_to, required=config.hard_negatives > 0)
    except ImportError:
        if config.hard_negatives or options.get("first_stage"):
            raise
        print("prorank warmup: bm25s is not installed: no first-stage negatives, not even held-out", file=sys.stderr)
        return None


def _finish(
    result: WarmupResult, out: Path, config: WarmupConfig, options: dict[str, Any], sampler: PromptSampler,
    candidates: Run | None, base_sha256: str,
) -> None:  # fmt: skip
    """The record line, the analysis, the report and a summary for people."""
    from prorank.evaluate.record import append_record
    from prorank.files import sha256_file
    from prorank.pipeline.warmup_analysis import before_and_after
    from prorank.pipeline.warmup_report import write_report
    from prorank.training.runlog import read_log
    from prorank.training.warmup.held_out import intervals, summary

    collection, name = sampler.collection, options.get("model") or "smollm2-135m"
    before, after = summary(result.before), summary(result.after)
    bounds = intervals(result.after)
    payload = {
        "dataset": collection.name,
        "split": collection.split,
        "model": name,
        "base_sha256": base_sha256,
        "config": config_dict(config),
        "steps": result.steps,
        "prompts": result.prompts,
        "training_seconds": round(result.seconds, 1),
        "prompts_per_second": round(result.prompts / max(result.seconds, 1e-9), 2),
        "stopped": result.stopped,
        "held_out_queries": len(set(result.after.query.tolist())),
        "before": {k: round(v, 4) for k, v in before.items()},
        "after": {k: round(v, 4) for k, v in after.items()},
        "interval95": {k: [round(x, 4) for x in v] for k, v in bounds.items()},
        "adapter_sha256": {p.name: sha256_file(p) for p in sorted(result.last.glob("*.safetensors"))},
    }
    record = append_record(out / "records.jsonl", "warmup", payload)
    if options.get("records"):
        append_record(options["records"], "warmup", payload)
    log = read_log(out / "log.jsonl")
    write_report(out / "report.html", log, record)
    for key, value in after.items():
        low, high = bounds[key]
        print(f"{key:26} {before.get(key, float('nan')):8.3f} -> {value:.3f}  [{low:.3f}, {high:.3f}]")
    pairs = options["analysis_pairs"]
    if pairs and candidates is not None:
        analyses = before_and_after(
            name, result.last, collection, sampler.held_out_ids, candidates, config,
            pairs=pairs, out=out / "analysis", options=options,
        )  # fmt: skip
        write_report(out / "report.html", log, record, analyses)
    print(f"{result.stopped} after {result.steps} steps; checkpoint: {result.last}; report: {out / 'report.html'}")
