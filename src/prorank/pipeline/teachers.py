"""Teachers by name: first stages, prorank models, and every peer that ``evaluate`` knows; scored once, resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prorank.model.options import LoadOptions
from prorank.progress import system_progress

if TYPE_CHECKING:
    from prorank.data.collection import Collection
    from prorank.evaluate.systems import System
    from prorank.types import Run

__all__ = ["scored_candidates", "teacher_known", "teacher_run"]


def teacher_run(
    spec: str,
    collection: Collection,
    candidates: Run,
    folder: Path,
    *,
    options: LoadOptions | None = None,
    instruction: str | None = None,
) -> Run:
    """A teacher's scores of the candidates.

    Args:
        spec: as :func:`prorank.data.teacher.teacher_scores`: an encoder, a first stage, a TREC run file, a mixture; or
            a peer as ``evaluate --baseline`` takes it (``cross-encoder:MODEL``, ``openai-pointwise:MODEL@URL``, ...);
            or a prorank model. A mixture may hold all of them.
        folder: keeps the scores, so that an interrupted run goes on.
        options: how a prorank model is loaded; its own ``model`` is not looked at.
        instruction: what relevance means here, for a prorank model.

    Raises:
        ValueError: the spec is unknown.
    """
    from prorank.data.teacher import teacher_scores

    def peer(part: str) -> Run:
        system = _system(part, options or LoadOptions(), instruction)
        return scored_candidates(system, collection, candidates, folder)

    return teacher_scores(spec, collection, candidates, other=peer)


def scored_candidates(system: System, collection: Collection, candidates: Run, folder: Path) -> Run:
    """The system's scores of every query's candidates, best first; with progress; an interrupted run goes on."""
    from prorank.evaluate.run import run_system

    every = {q: collection.qrels.get(q, {}) for q in collection.queries}
    with system_progress() as on_system:
        on_query = on_system(system.name, sum(bool(candidates.get(q)) for q in every))
        outcome = run_system(system, replace(collection, qrels=every), candidates, folder, on_query=on_query)
    return outcome.run


def teacher_known(spec: str, options: LoadOptions) -> None:
    """Whether :func:`teacher_run` will find what the spec names, before another teacher scores for hours.

    Raises:
        ValueError: it will not; the message opens with ``teacher``.
        ImportError: its library is not installed.
    """
    from prorank.data.teacher import check_teacher
    from prorank.pipeline.checks import models_known

    models = [part for part in check_teacher(spec) if _peer(part) is None]
    if models:
        models_known(options, models, "teacher")


def _peer(spec: str) -> Callable[[], System] | None:
    """What loads a peer as ``evaluate --baseline`` takes it; None where the spec names no kind of peer."""
    from prorank.evaluate.baselines import BASELINES, parse_baseline

    kinds = {name.partition(":")[0].partition("[")[0] for name in BASELINES}
    if spec.partition(":")[0] not in kinds:
        return None
    baseline = parse_baseline(spec)
    if baseline.load is None:
        raise ValueError(f"teacher: {spec!r} is a run; name its file")
    return baseline.load


def _system(spec: str, options: LoadOptions, instruction: str | None) -> System:
    load = _peer(spec)
    if load is not None:
        return load()
    from prorank.evaluate.systems import RerankerSystem
    from prorank.reranker import Reranker

    return RerankerSystem(Reranker.load(replace(options, model=spec)), instruction=instruction)
