"""A teacher's scores of candidates, by its name: an encoder, a first stage, a run file, or a mixture of them.

A mixture (``mixture:splade-tiny+2*all-mpnet-base-v2+given:teacher-splade``) is the weighted mean of its parts' scores,
each brought to mean 0 and deviation 1 within a query's candidates. It knows no reranker: what else can score comes in
as ``other``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prorank._optional import check
from prorank.data.collection import Collection
from prorank.data.encoders import ENCODERS, encoder_row
from prorank.data.first_stage import check_spec, first_stage
from prorank.types import Run

__all__ = ["Part", "check_teacher", "is_encoder", "mixture_parts", "teacher_scores"]

_FIRST_STAGES = ("bm25", "dense", "sparse", "fused", "given")
_ENCODER_KINDS = ("bi-encoder", "sparse-encoder")


class Part(NamedTuple):
    """One of a mixture's teachers."""

    spec: str
    weight: float


def mixture_parts(spec: str) -> list[Part]:
    """The parts of ``mixture:[WEIGHT*]SPEC+...``; any other spec is one part of weight 1.

    Raises:
        ValueError: a part is empty, or its weight is no positive number.
    """
    kind, _, rest = spec.partition(":")
    if kind != "mixture":
        return [Part(spec, 1.0)]
    parts = []
    for text in rest.split("+"):
        weight, star, name = text.strip().rpartition("*")
        if not name.strip():
            raise ValueError(f"teacher: {spec!r}: expected mixture:[WEIGHT*]NAME+[WEIGHT*]NAME..., found an empty name")
        try:
            value = float(weight) if star else 1.0
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise ValueError(f"teacher: {spec!r}: the weight {weight!r} of {name} must be a number above 0")
        parts.append(Part(name.strip(), value))
    return parts


def is_encoder(spec: str) -> bool:
    """Whether a spec names an encoder: ``bi-encoder[:MODEL]``, ``sparse-encoder[:MODEL]``, or a built-in's name."""
    return spec.partition(":")[0] in _ENCODER_KINDS or spec.lower() in ENCODERS


def check_teacher(spec: str) -> list[str]:
    """Look at a spec before anything is computed.

    Returns:
        The parts that are neither encoders nor first stages nor run files: whoever calls must know them.

    Raises:
        ValueError: the spec is malformed, or names an encoder of another kind or a folder that is not there.
        ImportError: a library is not installed.
    """
    others = []
    for part in mixture_parts(spec):
        if is_encoder(part.spec):
            kind, _, name = part.spec.partition(":")
            _check_kind(name or part.spec, kind)
            check("sentence_transformers", "scipy", extra="evaluate")
            if name.startswith((".", "/", "~")) and not Path(name).is_dir():
                raise ValueError(f"teacher: {part.spec}: there is no folder {name}")
        elif _is_run(part.spec):
            try:
                check_spec(part.spec)
            except ValueError as error:
                raise ValueError(f"teacher: {str(error).removeprefix('first-stage: ')}") from None
        else:
            others.append(part.spec)
    return others


def _check_kind(name: str, kind: str) -> None:
    try:
        encoder_row(name, kind if kind in _ENCODER_KINDS else None)
    except ValueError as error:
        raise ValueError(f"teacher: {error}") from None


def teacher_scores(
    spec: str,
    collection: Collection,
    candidates: Run,
    *,
    extra: Mapping[str, Sequence[str]] | None = None,
    other: Callable[[str], Run] | None = None,
) -> Run:
    """Scores of every query's candidates, best first.

    Args:
        spec: see above; first stages as ``--first-stage`` takes them.
        extra: query_id -> more documents to score, such as relevant ones that no first stage found; a first stage or a
            run that lacks them leaves them out, a mixture gives them such a part's lowest score.
        other: scores of the candidates by a spec that is none of these.

    Raises:
        ValueError: the spec is unknown or malformed, or an encoder cannot be fetched.
    """
    parts = mixture_parts(spec)
    wanted = {
        query_id: list(dict.fromkeys([*listed, *(extra or {}).get(query_id, ())]))
        for query_id, listed in candidates.items()
    }
    runs = [_scores(part.spec, collection, wanted, other) for part in parts]
    if not spec.startswith("mixture:"):
        return runs[0]
    mixed: dict[str, dict[str, float]] = {}
    for query_id, doc_ids in wanted.items():
        total = np.zeros(len(doc_ids))
        for part, run in zip(parts, runs, strict=True):
            total += part.weight * _standardised(run.get(query_id, {}), doc_ids, len(candidates[query_id]))
        total /= sum(part.weight for part in parts)
        order = np.argsort(-total, kind="stable")
        mixed[query_id] = {doc_ids[i]: float(total[i]) for i in order}
    return mixed


def _standardised(scores: Mapping[str, float], doc_ids: Sequence[str], candidates: int) -> Any:
    """Scores with mean 0 and deviation 1 over the first ``candidates``; zeros where all are equal or there are none."""
    if not scores or not candidates:
        return np.zeros(len(doc_ids))
    lowest = min(scores.values())
    values = np.array([scores.get(doc_id, lowest) for doc_id in doc_ids])
    deviation = values[:candidates].std()
    if deviation < 1e-12:
        return np.zeros(len(doc_ids))
    return (values - values[:candidates].mean()) / deviation


def _scores(
    spec: str, collection: Collection, wanted: Mapping[str, Sequence[str]], other: Callable[[str], Run] | None
) -> Run:
    if is_encoder(spec):
        return _encoder_scores(spec, collection, wanted)
    if _is_run(spec):
        depth = max(1000, max(map(len, wanted.values()), default=0))
        scores = first_stage(spec, collection, depth)
        return {q: {d: s for d, s in scores.get(q, {}).items() if d in set(listed)} for q, listed in wanted.items()}
    if other is not None:
        return other(spec)
    raise ValueError(
        f"teacher: {spec!r} is not a run file, an encoder ({', '.join(ENCODERS)}, bi-encoder:MODEL, "
        f"sparse-encoder:MODEL) or one of {', '.join(_FIRST_STAGES)}; a prorank model or a peer scores by prorank teach"
    )


def _is_run(spec: str) -> bool:
    return spec.partition(":")[0] in _FIRST_STAGES or (Path(spec).is_file() and not spec.endswith(".gguf"))


def _encoder_scores(spec: str, collection: Collection, wanted: Mapping[str, Sequence[str]]) -> Run:
    kind, _, name = spec.partition(":")
    row = encoder_row(spec)
    if row is not None:
        kind, name = row.kind, row.name
    place = {doc_id: i for i, doc_id in enumerate(collection.documents)}
    encoder: Any
    if kind == "sparse-encoder":
        from prorank.data.sparse import sparse_encoder

        encoder = sparse_encoder(name or None, dtype="fast")
        queries = encoder.encode([collection.queries[q].text for q in wanted])
    else:
        from prorank.data.dense import bi_encoder

        encoder = bi_encoder(name or None, dtype="fast")
        queries = encoder.encode([collection.queries[q].text for q in wanted], query=True)
    documents = encoder.documents(collection)
    run: dict[str, dict[str, float]] = {}
    for number, (query_id, doc_ids) in enumerate(wanted.items()):
        rows = documents[[place[d] for d in doc_ids]]
        query = queries[[number]] if kind == "sparse-encoder" else queries[number]
        scores = (rows @ query.T).toarray()[:, 0] if kind == "sparse-encoder" else rows @ query
        order = np.argsort(-scores, kind="stable")
        run[query_id] = {doc_ids[i]: float(scores[i]) for i in order}
    return run
