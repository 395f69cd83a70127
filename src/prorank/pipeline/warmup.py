"""Stage 1 as one call: teach a base the relevance prompt by GRPO, and say what it learnt.

    from prorank.pipeline.warmup import WarmupRun, warmup
    warmed_up = warmup(WarmupRun(data="my_folder", out="runs/warmup"))

Checkpoints, log, record and report are in ``out``. A run that was interrupted goes on from there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prorank.config import config_dict
from prorank.data.collection import Collection
from prorank.data.load import training_split
from prorank.model.options import LoadOptions
from prorank.pipeline.candidates import lists_of, open_collection
from prorank.pipeline.checks import collection_there, first_stage_known, target_writable
from prorank.pipeline.runs import TrainingRun, errors_name_fields, training_ready
from prorank.prompt.encoder import DEFAULT_MAX_LENGTH, PromptEncoder
from prorank.training.processes import is_first
from prorank.training.warmup.config import WarmupConfig
from prorank.types import Run

if TYPE_CHECKING:
    from prorank.evaluate.analyze import Analysis
    from prorank.training.warmup.loop import WarmupResult
    from prorank.training.warmup.prompts import PromptSampler

__all__ = ["Change", "WarmedUp", "WarmupRun", "warmup", "warmup_on"]


@dataclass(frozen=True, kw_only=True)
class WarmupRun(TrainingRun):
    """What a warmup needs."""

    data: str | os.PathLike[str]
    """Collection with judgments: BEIR or TREC folder, JSON lines, irds:ID, stdlib."""
    first_stage: str | None = None
    """Where hard negatives come from: bm25, dense, a run file (default: bm25)."""
    analysis_pairs: int = 60
    """Held-out prompts of the analysis before and after; 0 leaves it out."""
    records: str | None = None
    """File to append the record line to, besides OUT/records.jsonl."""
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    """Settings of the training itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not os.fspath(self.data):
            raise ValueError("data: expected a collection to train on, got an empty name")
        if self.analysis_pairs < 0 or self.analysis_pairs == 1:
            raise ValueError(f"analysis_pairs: expected 0 or at least 2, got {self.analysis_pairs}")


class Change(NamedTuple):
    """A held-out measure before and after, with a 95 % bootstrap interval of the latter."""

    measure: str
    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True)
class WarmedUp:
    """What a warmup leaves. Processes other than the first have only ``training``."""

    training: WarmupResult
    """Checkpoints, steps, time, how it ended."""
    changes: Sequence[Change] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    """The line in ``records.jsonl``."""
    report: Path | None = None
    """The HTML page."""
    analyses: Sequence[Analysis] = ()
    """Of the base and of the result."""

    @property
    def model(self) -> Path:
        """The checkpoint to go on from."""
        return self.training.best if self.training.best.is_dir() else self.training.last


def warmup(run: WarmupRun) -> WarmedUp:
    """Warm up on the run's collection.

    Raises:
        ValueError: bad input; the message opens with the field.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    training_ready(run)
    target_writable("records", run.records)
    data = os.fspath(run.data)
    collection_there("data", data, run.split)
    if run.first_stage:
        first_stage_known("first_stage", run.first_stage)
    split = training_split(data, run.split)
    return warmup_on(open_collection(data, split, run.own_documents), run)


@errors_name_fields("warmup", WarmupConfig)
def warmup_on(collection: Collection, run: WarmupRun) -> WarmedUp:
    """:func:`warmup` on a collection in memory; the run's own is not looked at."""
    from prorank.training.warmup.prompts import PromptSampler

    config = run.warmup
    PromptSampler(collection, replace(config, hard_negatives=0))  # finds bad judgments before the first stage runs
    candidates = _candidates(run, collection)
    sampler = PromptSampler(collection, config, candidates)

    import torch

    from prorank.model.base import load_base
    from prorank.prompt.derive import resolve_template
    from prorank.training.warmup.loop import warmup as train

    if run.threads:
        torch.set_num_threads(run.threads)
    name = os.fspath(run.model)
    base = load_base(name)
    template = resolve_template(run.template, base.tokenizer)
    encoder = PromptEncoder(base.tokenizer, template, max_length=run.max_length or DEFAULT_MAX_LENGTH)
    result = train(base, encoder, sampler, config, Path(run.out), base_name=name, device=run.device)
    sha256 = base.sha256
    del base  # room for the two models of the analysis
    if not is_first():
        return WarmedUp(result)
    return _reported(result, run, sampler, candidates, sha256)


def _candidates(run: WarmupRun, collection: Collection) -> Run | None:
    """The first stage's lists: hard negatives, and held-out ones to be reported apart; without bm25s neither."""
    spec, depth = run.first_stage or "bm25", run.warmup.hard_rank_to
    try:
        return lists_of(collection, spec, depth, required=run.warmup.hard_negatives > 0)
    except ImportError:
        if run.warmup.hard_negatives or run.first_stage:
            raise
        print("warmup: bm25s is not installed: no first-stage negatives, not even held-out", file=sys.stderr)
        return None


def _reported(
    result: WarmupResult, run: WarmupRun, sampler: PromptSampler, candidates: Run | None, base_sha256: str
) -> WarmedUp:
    """The record line, the analysis and the report."""
    from prorank.evaluate.record import append_record
    from prorank.pipeline.analysis import before_and_after
    from prorank.pipeline.reports import write_warmup_report
    from prorank.training.runlog import read_log

    out = Path(run.out)
    changes = _changes(result)
    payload = _payload(result, run, sampler.collection, changes, base_sha256)
    record = append_record(out / "records.jsonl", "warmup", payload)
    if run.records:
        append_record(run.records, "warmup", payload)
    log, report = read_log(out / "log.jsonl"), out / "report.html"
    write_warmup_report(report, log, record)
    analyses: list[Analysis] = []
    if run.analysis_pairs and candidates is not None:
        precision = run.warmup.precision
        base = LoadOptions(
            run.model, template=run.template, device=run.device, max_length=run.max_length,
            dtype=None if precision == "auto" else precision,
        )  # fmt: skip
        analyses = before_and_after(
            base, result.last, sampler.collection, sampler.held_out_ids, candidates,
            threshold=run.warmup.relevance_threshold or 1, pairs=run.analysis_pairs, out=out / "analysis",
        )  # fmt: skip
        write_warmup_report(report, log, record, analyses)
    return WarmedUp(result, changes, record, report, analyses)


def _changes(result: WarmupResult) -> list[Change]:
    from prorank.training.warmup.held_out import intervals, summary

    before, bounds = summary(result.before), intervals(result.after)
    return [
        Change(name, before.get(name, float("nan")), value, *bounds[name])
        for name, value in summary(result.after).items()
    ]


def _payload(
    result: WarmupResult, run: WarmupRun, collection: Collection, changes: Sequence[Change], base_sha256: str
) -> dict[str, Any]:
    """The record's own fields."""
    from prorank.files import sha256_file
    from prorank.training.warmup.held_out import summary

    return {
        "dataset": collection.name,
        "split": collection.split,
        "model": os.fspath(run.model),
        "base_sha256": base_sha256,
        "config": config_dict(run.warmup),
        "steps": result.steps,
        "prompts": result.prompts,
        "training_seconds": round(result.seconds, 1),
        "prompts_per_second": round(result.prompts / max(result.seconds, 1e-9), 2),
        "stopped": result.stopped,
        "held_out_queries": len(set(result.after.query.tolist())),
        "before": {k: round(v, 4) for k, v in summary(result.before).items()},
        "after": {one.measure: round(one.after, 4) for one in changes},
        "interval95": {one.measure: [round(one.low, 4), round(one.high, 4)] for one in changes},
        "adapter_sha256": {p.name: sha256_file(p) for p in sorted(result.last.glob("*.safetensors"))},
    }
