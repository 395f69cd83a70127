"""What every training run needs: the model, the output folder, how to load and compute."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import get_args

from prorank.data.collection import OwnDocuments
from prorank.model.built_in import DEFAULT_BASE
from prorank.pipeline.checks import device_there, folder_writable, installed, model_known, template_known
from prorank.pipeline.datasets import Data, DatasetSpec, specs_of
from prorank.training.config import TrainingConfig

__all__ = ["MixtureRun", "TrainingRun", "errors_name_fields", "training_ready"]


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """The fields that warmup, refine and train share; attribute docstrings are the flags' help texts."""

    out: str | os.PathLike[str]
    """Folder of the run: checkpoints, log, record, report."""
    model: str | os.PathLike[str] = DEFAULT_BASE
    """Base: built-in name, folder, hub id or .gguf file."""
    split: str | None = None
    """Which judgments (default: train, or the only ones)."""
    first_stage: str | None = None
    """Where candidates come from: bm25, dense, fused, given, a run file (default: the data's own lists, else bm25)."""
    own_documents: OwnDocuments | None = None
    """Keep a document with the query's own id as a candidate, or drop it from lists, negatives and measures (default:
    drop in BEIR folders, as BEIR does, else keep)."""
    template: str | None = None
    """Template preset or JSON file (default: the checkpoint's, else derived from the base)."""
    max_length: int | None = None
    """Token limit of a whole prompt at inference (default: the model's own)."""
    device: str | None = None
    """Where to compute: cpu or cuda (default: the best available)."""
    threads: int | None = None
    """CPU threads (default: all cores)."""

    def __post_init__(self) -> None:
        if not os.fspath(self.out):
            raise ValueError("out: expected a folder, got an empty name")
        self._at_least_one("max_length", "threads")
        if self.own_documents not in (None, *get_args(OwnDocuments)):
            raise ValueError(f"own_documents: expected keep or drop, got {self.own_documents!r}")

    def _lists(self, *names: str) -> None:
        for name in names:
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: expected a list, got {getattr(self, name)!r}")

    def _at_least_one(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class MixtureRun(TrainingRun):
    """The further fields of runs that learn to order the documents of one collection or several."""

    data: Data
    """Collection, or several: BEIR or TREC folder, JSON lines of lists or triples, irds:ID, stdlib; repeatable."""
    teacher: str | None = None
    """Whose scores kl and margin_mse learn from: as the first stage, an encoder (splade-tiny, all-mpnet-base-v2,
    bi-encoder:MODEL, sparse-encoder:MODEL), mixture:[WEIGHT*]SPEC+..., or the file of `prorank teach`."""
    instruction: str | None = None
    """What relevance means in this data."""
    eval_top_k: int = 20
    """Candidates to rerank per query in evaluations during training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("eval_top_k")
        if not self.specs:
            raise ValueError("data: expected a collection to train on, got none")

    @property
    def specs(self) -> list[DatasetSpec]:
        """All collections; what the run says of data (split, teacher ...) holds for those given by their path alone."""
        common = DatasetSpec("", self.split, self.first_stage, self.teacher, self.instruction)
        return specs_of(self.data, replace(common, own_documents=self.own_documents))


def training_ready(run: TrainingRun, *modules: str) -> None:
    """Look at what every training run needs: an output folder, the extra, a base, a template, a device.

    Args:
        modules: of the extra ``train``, what this run uses in the end besides accelerate and jinja2.

    Raises:
        ValueError: something is not there; the message opens with the field.
        ImportError: a module is not installed; the message names the extra.
    """
    folder_writable("out", os.fspath(run.out))
    installed("accelerate", "jinja2", *modules, extra="train")
    template_known("template", run.template)
    model_known("model", os.fspath(run.model))
    device_there(run.device)


@contextlib.contextmanager
def errors_name_fields(section: str, settings: type[TrainingConfig]) -> Iterator[None]:
    """Let errors from inside open with a field of the run: ``refine.held_out: ...``, not ``held_out`` or ``--out``."""
    try:
        yield
    except ValueError as error:
        found = re.match(r"(--)?([\w.]+)(: | (?=\S+: ))", str(error))
        name = found[2] if found else ""
        if found is None or type(error) is not ValueError:
            raise
        if name in {field.name for field in fields(settings)}:
            name = f"{section}.{name}"
        elif not found[1]:
            raise
        raise ValueError(f"{name}: {str(error)[found.end() :]}") from error
