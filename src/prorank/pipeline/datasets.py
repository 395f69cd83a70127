"""Training collections: cleaned of what evaluation sets share, with candidates and a teacher's scores."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prorank.data.collection import Collection, OwnDocuments
from prorank.data.first_stage import first_stage
from prorank.data.load import load_collection, splits_of, training_split
from prorank.data.overlap import find_overlap, without
from prorank.data.teacher import check_teacher, is_encoder, teacher_scores
from prorank.pipeline.candidates import lists_of, open_collection
from prorank.pipeline.checks import collection_there, first_stage_known
from prorank.training.refine.config import RefineConfig
from prorank.types import Run

if TYPE_CHECKING:
    from prorank.training.refine.lists import ListSource

__all__ = [
    "Data", "DatasetSpec", "EvaluationSet", "Prepared", "datasets_there", "list_source", "load_dataset",
    "load_excluded", "load_tests", "specs_of",
]  # fmt: skip


@dataclass(frozen=True)
class DatasetSpec:
    """One collection to train on; a ``[[datasets]]`` table of a recipe."""

    path: str
    """BEIR or TREC folder, JSON lines, irds:ID, or stdlib."""
    split: str | None = None
    """Which judgments; train where there are several."""
    first_stage: str | None = None
    """Where candidates come from: bm25, dense, fused, given, a run file; default: the data's own lists, else bm25."""
    teacher: str | None = None
    """Whose scores to learn from: the same names, an encoder, mixture:[WEIGHT*]SPEC+..., or a file of `teach`."""
    instruction: str | None = None
    """What relevance means here."""
    weight: float = 1.0
    """Of this collection in the mixture."""
    cap: int | None = None
    """At most so many lists of one query in an epoch."""
    own_documents: OwnDocuments | None = None
    """A document with the query's own id: keep or drop; default: drop in BEIR folders, else keep."""
    teacher_positives: int = 0
    """Take so many of the teacher's best candidates as relevant where a query has no relevant document."""


Data = str | os.PathLike[str] | DatasetSpec | Sequence[str | os.PathLike[str] | DatasetSpec]
"""One collection or several, by path or with all that there is to say of them."""


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


def specs_of(data: Data, common: DatasetSpec) -> list[DatasetSpec]:
    """All collections as specs; what ``common`` says holds for those given by their path alone."""
    return [
        one if isinstance(one, DatasetSpec) else replace(common, path=os.fspath(one))
        for one in ([data] if isinstance(data, str | os.PathLike | DatasetSpec) else data)
    ]


def datasets_there(specs: Sequence[DatasetSpec]) -> None:
    """Every file, split and first stage that the specs name, before the first one's candidates are computed.

    Raises:
        ValueError: one is not there; the message opens with the field.
        ImportError: its library is not installed.
    """
    for spec in specs:
        collection_there("data", spec.path, spec.split)
        if spec.first_stage is not None:
            first_stage_known("first_stage", spec.first_stage)
        if spec.teacher is not None:
            _teacher_known(spec.teacher)


def _teacher_known(spec: str) -> None:
    others = check_teacher(spec)
    if others:
        raise ValueError(
            f"teacher: {others[0]!r} is not a run file, encoder or first stage; a prorank model or a peer scores by "
            "prorank teach, whose file is named here"
        )


def load_dataset(
    spec: DatasetSpec, depth: int, evaluation: Sequence[Collection] = (), *, need_candidates: bool = True
) -> Prepared:
    """Load, drop what evaluation sets share (and say so), compute candidates and teacher scores.

    Args:
        depth: candidates a query.
        need_candidates: whether it is an error that no query has any.
    """
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
    if spec.teacher == stage:
        teacher = candidates
    elif spec.teacher is not None:
        teacher = _taught(spec.teacher, collection, candidates, depth)
    return Prepared(spec, collection, candidates, teacher)


def _taught(spec: str, collection: Collection, candidates: Run, depth: int) -> Run:
    """A teacher's scores: encoders and mixtures score candidates and relevant documents, others what they list."""
    if not is_encoder(spec) and not spec.startswith("mixture:"):
        return first_stage(spec, collection, 2 * depth)
    relevant = {
        query_id: [d for d, relevance in judged.items() if relevance > 0 and d in collection.documents]
        for query_id, judged in collection.qrels.items()
    }
    return teacher_scores(spec, collection, candidates, extra=relevant)


def load_excluded(
    specs: Sequence[str], field: str = "exclude", own_documents: OwnDocuments | None = None
) -> list[Collection]:
    """Evaluation sets named as ``PATH`` (all its splits but train) or ``PATH:SPLIT``.

    Raises:
        ValueError: one cannot be loaded; the message opens with field and name.
    """
    found = []
    for spec in specs:
        path, split = _path_and_split(spec)
        try:
            splits = [split] if split else [s for s in splits_of(path) if s != "train"]
            found += [load_collection(path, one, own_documents=own_documents) for one in splits]
        except ValueError as error:
            raise ValueError(f"{field} {spec}: {error}") from None
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
        for collection in load_excluded([spec], "test", own_documents)
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
        instruction=spec.instruction, weight=spec.weight, cap=spec.cap, teacher_positives=spec.teacher_positives,
    )  # fmt: skip
