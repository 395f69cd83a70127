"""Stage 2 as one call: teach a (warmed-up) model to order documents finely, and say how well it does.

    from prorank.pipeline.refine import RefineRun, refine
    refined = refine(RefineRun(data="my_folder", model="runs/warmup/best", out="runs/refined"))

Checkpoints, log, record and report are in ``out``. A run that was interrupted goes on from there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorank.config import config_dict
from prorank.model.built_in import DEFAULT_BASE
from prorank.pipeline.checks import target_writable
from prorank.pipeline.datasets import Prepared, datasets_there, list_source, load_dataset, load_excluded
from prorank.pipeline.runs import MixtureRun, errors_name_fields, training_ready
from prorank.prompt.encoder import DEFAULT_MAX_LENGTH, PromptEncoder
from prorank.training.processes import is_first
from prorank.training.refine.config import TEACHER_LOSSES, RefineConfig

if TYPE_CHECKING:
    from prorank.training.refine.lists import ListSource
    from prorank.training.refine.loop import RefineResult

__all__ = ["RefineRun", "Refined", "refine", "refine_on"]


@dataclass(frozen=True, kw_only=True)
class RefineRun(MixtureRun):
    """What a refine run needs."""

    model: str | os.PathLike[str] = DEFAULT_BASE
    """Checkpoint of warmup, built-in name, folder or hub id."""
    first_stage: str | None = None
    """Where rivals come from: bm25, dense, fused, given, a run file (default: the data's own lists, else bm25)."""
    exclude: tuple[str, ...] = ()
    """Evaluation sets: queries and passages that they share with the training data are dropped; repeatable."""
    records: str | None = None
    """File to append the record line to, besides OUT/records.jsonl."""
    refine: RefineConfig = field(default_factory=RefineConfig)
    """Settings of the training itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._lists("exclude")


@dataclass(frozen=True)
class Refined:
    """What a refine run leaves. Processes other than the first have only ``training``."""

    training: RefineResult
    """Checkpoints, steps, time, held-out values before and after."""
    first_stage: Mapping[str, float] = field(default_factory=dict)
    """What the candidates' own order scores on the held-out queries."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """The line in ``records.jsonl``."""
    report: Path | None = None
    """The HTML page."""

    @property
    def model(self) -> Path:
        """The checkpoint with the best held-out score."""
        return self.training.best


def refine(run: RefineRun) -> Refined:
    """Refine the run's model on its collections.

    Raises:
        ValueError: bad input; the message opens with the field.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    training_ready(run, "ir_measures")
    target_writable("records", run.records)
    datasets_there(run.specs)
    evaluation = load_excluded(run.exclude)
    need = run.refine.hard_negatives > 0
    prepared = [load_dataset(spec, run.refine.depth, evaluation, need_candidates=need) for spec in run.specs]
    return refine_on(prepared, run)


@errors_name_fields("refine", RefineConfig)
def refine_on(prepared: Sequence[Prepared], run: RefineRun) -> Refined:
    """:func:`refine` on collections in memory; the run's own are not looked at."""
    from prorank.training.refine.lists import Mixture

    config = run.refine
    sources = [list_source(one, config) for one in prepared]
    _check_targets(config, prepared, sources)
    mixture = Mixture(sources, config)
    for source, share in zip(sources, mixture.shares, strict=True):
        name, queries = source.collection.name, source.train_queries
        print(f"{name}: {queries} queries, {source.size} lists an epoch, {share:.0%} of the draws", file=sys.stderr)

    import torch

    from prorank.model.base import load_base
    from prorank.model.checkpoint import check_base, read_adapter
    from prorank.pipeline.held_out import held_out_evaluation
    from prorank.prompt.derive import resolve_template
    from prorank.training.refine.loop import refine as train

    if run.threads:
        torch.set_num_threads(run.threads)
    base_name, adapter, manifest = read_adapter(os.fspath(run.model))
    base = load_base(base_name)
    if adapter is not None:
        check_base(adapter, manifest, base_name, base.sha256)
    template = manifest.template if manifest and not run.template else resolve_template(run.template, base.tokenizer)
    length = run.max_length or (manifest.max_length if manifest else 0) or DEFAULT_MAX_LENGTH
    reading: Any = manifest.long_documents if manifest else "truncate"
    encoder = PromptEncoder(base.tokenizer, template, max_length=length, long_documents=reading)
    result = train(
        base, encoder, mixture, config, Path(run.out), base_name=base_name, adapter=adapter, device=run.device,
        on_eval=held_out_evaluation(sources, config.held_out_queries, run.eval_top_k),
    )  # fmt: skip
    if not is_first():
        return Refined(result)
    return _reported(result, run, sources, base.sha256)


def _check_targets(config: RefineConfig, prepared: Sequence[Prepared], sources: Sequence[ListSource]) -> None:
    """Every loss must find something to read."""
    if all(one.teacher is None for one in prepared):
        remedy = "give --teacher (in Python: teacher=...)"
        for name in config.loss_weights():
            if name in TEACHER_LOSSES:
                raise ValueError(f"refine.losses: {name} learns from a teacher's scores; {remedy}")
        if config.false_negative_margin is not None:
            raise ValueError(f"refine.false_negative_margin: needs a teacher's scores; {remedy}")
        if config.rivals == "quantiles":
            raise ValueError(f"refine.rivals: quantiles are those of a teacher's scores; {remedy}")
    for source in sources:
        if not source.labelled and not any(name in TEACHER_LOSSES for name in config.loss_weights()):
            raise ValueError(
                f"refine.losses: {source.collection.name} has no relevant documents to learn from; add kl or "
                "margin_mse, or set teacher_positives in its [[datasets]] table"
            )
    if config.hard_negatives and not any(source.candidates for source in sources):
        raise ValueError("refine.hard_negatives: no candidates to draw them from; give --first-stage (first_stage=...)")


def _reported(result: RefineResult, run: RefineRun, sources: Sequence[ListSource], base_sha256: str) -> Refined:
    """The record line and the report."""
    from prorank.evaluate.record import append_record
    from prorank.files import sha256_file
    from prorank.pipeline.held_out import first_stage_scores
    from prorank.pipeline.reports import write_refine_report
    from prorank.training.runlog import read_log

    config, out = run.refine, Path(run.out)
    first_stage = {k: round(v, 4) for k, v in first_stage_scores(sources, config.held_out_queries).items()}
    payload = {
        "datasets": [
            {"name": s.collection.name, "split": s.collection.split, "lists": s.size, "weight": s.weight}
            for s in sources
        ],
        "model": os.fspath(run.model),
        "base_sha256": base_sha256,
        "config": config_dict(config),
        "steps": result.steps,
        "documents": result.documents,
        "training_seconds": round(result.seconds, 1),
        "documents_per_second": round(result.documents / max(result.seconds, 1e-9), 2),
        "stopped": result.stopped,
        "held_out_queries": config.held_out_queries,
        "first_stage": first_stage,
        "before": {k: round(v, 4) for k, v in result.before.items()},
        "after": {k: round(v, 4) for k, v in result.after.items()},
        "best_step": result.best_step,
        "adapter_sha256": {p.name: sha256_file(p) for p in sorted(result.best.glob("*.safetensors"))},
    }
    record = append_record(out / "records.jsonl", "refine", payload)
    if run.records:
        append_record(run.records, "refine", payload)
    write_refine_report(out / "report.html", read_log(out / "log.jsonl"), record)
    return Refined(result, first_stage, record, out / "report.html")
