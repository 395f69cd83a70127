"""Training collections as flags or recipes name them: cleaned of overlap, with candidates and teacher scores."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prorank.pipeline.candidates import lists_of, open_collection
from prorank.pipeline.checks import collection_there, first_stage_known

if TYPE_CHECKING:
    from prorank.data.collection import Collection, OwnDocuments
    from prorank.training.refine.config import RefineConfig
    from prorank.training.refine.lists import ListSource
    from prorank.types import Run

__all__ = [
    "DatasetSpec",
    "EvaluationSet",
    "Prepared",
    "datasets_there",
    "list_source",
    "load_dataset",
    "load_tests",
    "read_specs",
]


@dataclass(frozen=True)
class DatasetSpec:
    """One ``[[datasets]]`` table of a recipe."""

    path: str
    """BEIR or TREC folder, JSON lines, irds:ID, or stdlib."""
    split: str | None = None
    """Which judgments; train where there are several."""
    first_stage: str | None = None
    """Where candidates come from: bm25, dense, fused, given, a run file; default: the data's own lists, else bm25."""
    teacher: str | None = None
    """Whose scores to learn from: the same names, a run file of `prorank teach`, or given."""
    instruction: str | None = None
    """What relevance means here."""
    weight: float = 1.0
    """Of this collection in the mixture."""
    cap: int | None = None
    """At most so many lists of one query in an epoch."""
    own_documents: OwnDocuments | None = None
    """A document with the query's own id: keep or drop; default: drop in BEIR folders, else keep."""


@dataclass(frozen=True)
class Prepared:
    """A collection ready to be trained on."""

    spec: DatasetSpec
    collection: Collection
    candidates: Run | None
    teacher: Run | None


class EvaluationSet(NamedTuple):
    """What a trained model is tested on."""

    collection: Collection
    instruction: str | None = None
    """What relevance means here, as it was trained."""


def read_specs(flags: Sequence[str] | None, file: Mapping[str, Any], common: Mapping[str, Any]) -> list[DatasetSpec]:
    """Specs of ``--data`` flags, or else of the ``[[datasets]]`` tables, or else of ``data`` in a configuration file.

    Args:
        common: values for what a spec leaves open (from flags).

    Raises:
        ValueError: none is named, or a table has an unknown or missing field.
    """
    tables: list[Any] = [{"path": path} for path in flags or ()]
    if not tables:
        given = file.get("datasets") or file.get("data") or []
        tables = [{"path": given}] if isinstance(given, str) else list(given)
    if not tables:
        raise ValueError("--data is missing: give it here, or [[datasets]] in --config")
    known = {field.name for field in fields(DatasetSpec)}
    specs = []
    for number, entry in enumerate(tables, 1):
        table = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(table, Mapping) or not isinstance(table.get("path"), str):
            raise ValueError(f"[[datasets]] number {number}: 'path' is missing")
        unknown = [name for name in table if name not in known]
        if unknown:
            raise ValueError(
                f"[[datasets]] number {number}: {unknown[0]!r} is no field (known: {', '.join(sorted(known))})"
            )
        specs.append(DatasetSpec(**{**{k: v for k, v in common.items() if v is not None}, **table}))
    return specs


def datasets_there(specs: Sequence[DatasetSpec]) -> None:
    """Every file, split and first stage that the specs name, before the first one's candidates are computed.

    Raises:
        ValueError: one is not there; the message names the flag.
        ImportError: its library is not installed.
    """
    for spec in specs:
        collection_there("--data", spec.path, spec.split)
        if spec.first_stage is not None:
            first_stage_known("--first-stage", spec.first_stage)
        if spec.teacher is not None:
            first_stage_known("--teacher", spec.teacher)


def load_dataset(
    spec: DatasetSpec, depth: int, evaluation: Sequence[Collection] = (), *, need_candidates: bool = True
) -> Prepared:
    """Load, drop what evaluation sets share (and say so), compute candidates and teacher scores.

    Args:
        depth: candidates a query.
        need_candidates: whether it is an error that no query has any.
    """
    from prorank.data.first_stage import first_stage
    from prorank.data.load import training_split
    from prorank.data.overlap import find_overlap, without

    collection = open_collection(spec.path, training_split(spec.path, spec.split), spec.own_documents)
    overlap = find_overlap(collection, evaluation)
    if any(overlap):
        print(
            f"{collection.name}: dropped {len(overlap.query_ids)} queries and {len(overlap.doc_ids)} passages that "
            "evaluation sets hold too",
            file=sys.stderr,
        )
        collection = without(collection, overlap)
    stage = spec.first_stage or ("given" if collection.candidates is not None else "bm25")
    candidates = lists_of(collection, stage, depth, required=need_candidates)
    teacher = None
    if spec.teacher is not None:
        teacher = candidates if spec.teacher == stage else first_stage(spec.teacher, collection, 2 * depth)
    return Prepared(spec, collection, candidates, teacher)


def load_excluded(
    specs: Sequence[str], flag: str = "--exclude", own_documents: OwnDocuments | None = None
) -> list[Collection]:
    """Evaluation sets named as ``PATH`` (all its splits but train) or ``PATH:SPLIT``.

    Raises:
        ValueError: one cannot be loaded; the message names the flag.
    """
    from prorank.data.load import load_collection, splits_of

    found = []
    for spec in specs:
        path, split = _path_and_split(spec)
        try:
            splits = [split] if split else [s for s in splits_of(path) if s != "train"]
            found += [load_collection(path, one, own_documents=own_documents) for one in splits]
        except ValueError as error:
            raise ValueError(f"{flag} {spec}: {error}") from None
    return found


def load_tests(
    specs: Sequence[str],
    datasets: Sequence[DatasetSpec],
    instruction: str | None,
    own_documents: OwnDocuments | None = None,
) -> list[EvaluationSet]:
    """Evaluation sets, named as for `load_excluded`, with the instructions that they were trained with.

    Args:
        datasets: a test set in the folder of one of them is tested with its instruction.
        instruction: for the others.
    """
    trained = {_resolved(one.path): one.instruction for one in reversed(datasets)}
    return [
        EvaluationSet(collection, trained.get(_resolved(_path_and_split(spec)[0]), instruction))
        for spec in specs
        for collection in load_excluded([spec], "--test", own_documents)
    ]


def _path_and_split(spec: str) -> tuple[str, str]:
    path, _, split = spec.rpartition(":") if not Path(spec).exists() else (spec, "", "")
    return (path, split) if path and path != "irds" else (spec, "")


def _resolved(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path


def list_source(prepared: Prepared, config: RefineConfig) -> ListSource:
    """The lists of a prepared collection."""
    from prorank.training.refine.lists import ListSource

    spec = prepared.spec
    return ListSource(
        prepared.collection, config, candidates=prepared.candidates, teacher=prepared.teacher,
        instruction=spec.instruction, weight=spec.weight, cap=spec.cap,
    )  # fmt: skip
