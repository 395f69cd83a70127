"""Peers by name: ``KIND[:MODEL[@URL]]`` -> a system, or a run that is already there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from prorank._optional import check
from prorank.data.encoders import encoder_row
from prorank.data.teacher import Part, check_teacher, mixture_parts
from prorank.data.trec import run_name
from prorank.evaluate.systems import System

__all__ = ["BASELINES", "Baseline", "parse_baseline"]

BASELINES = {
    "bi-encoder[:MODEL]": "dense bi-encoder (default: the offline MiniLM; all-mpnet-base-v2 is built in, too)",
    "sparse-encoder[:MODEL]": "SPLADE encoder (default: the built-in splade-tiny)",
    "mixture:[WEIGHT*]SPEC+...": "mean of several encoders' or first stages' scores, normalised within a query",
    "cross-encoder:MODEL": "any sentence-transformers cross-encoder",
    "yes-no:MODEL": "any causal LM by its yes/no logits (template qwen3-reranker), zero-shot",
    "cohere:MODEL[@URL]": "rerank service, key in COHERE_API_KEY; @URL: another server of that format",
    "jina:MODEL[@URL]": "rerank service, key in JINA_API_KEY",
    "voyage:MODEL[@URL]": "rerank service, key in VOYAGE_API_KEY",
    "openai-pointwise:MODEL[@URL]": "chat model, 0/1 by log-probabilities, key in OPENAI_API_KEY",
    "openai-listwise:MODEL[@URL]": "chat model, sliding windows (RankGPT style)",
    "run:FILE": "a TREC run file, or given:NAME of the collection's folder",
}
"""What ``--baseline`` takes, for the help text."""


class Baseline(NamedTuple):
    """A parsed ``--baseline``: exactly one of the two is set."""

    load: Callable[[], System] | None
    run: tuple[str, str] | None
    """(name, spec) of scores that need no system: a first stage's, or a mixture's of the candidates."""
    name: str | None = None
    """What it will be called in a table."""


def parse_baseline(spec: str) -> Baseline:
    """Read a ``--baseline`` value; no model is loaded yet.

    Raises:
        ValueError: the kind is unknown, the model is missing, a mixture is malformed, the run file or the model's
            folder does not exist, or there is no key for the service.
        ImportError: the library that it needs is not installed.
    """
    kind, _, rest = spec.partition(":")
    if kind in ("run", "given"):
        if kind == "run" and not Path(rest).is_file():
            raise ValueError(f"baseline: {spec!r}: there is no run file {rest!r}")
        name = run_name(rest) if kind == "run" else rest or "given"
        return Baseline(None, (name, rest if kind == "run" else spec), name)
    if kind == "mixture":
        try:
            others = check_teacher(spec)
        except ValueError as error:
            raise ValueError(f"baseline: {str(error).removeprefix('teacher: ')}") from None
        if others:
            raise ValueError(f"baseline: {spec!r}: {others[0]!r} is no encoder, first stage or run file")
        shown = "+".join(map(_part_name, mixture_parts(spec)))
        return Baseline(None, (shown, spec), shown)
    model, url = _split_url(rest)
    local = kind in ("bi-encoder", "sparse-encoder", "cross-encoder", "yes-no") and rest.startswith((".", "/", "~"))
    if local and not Path(rest).expanduser().exists():
        raise ValueError(f"baseline: {spec!r}: there is no model {rest!r}")
    if kind == "bi-encoder":
        from prorank.evaluate.systems import BiEncoderSystem

        check("sentence_transformers", extra="evaluate")
        return Baseline(lambda: BiEncoderSystem(rest or None), None, _encoder_name(rest, kind) or "all-MiniLM-L6-v2")
    if kind == "sparse-encoder":
        from prorank.evaluate.systems import SparseEncoderSystem

        check("scipy", extra="evaluate")
        return Baseline(lambda: SparseEncoderSystem(rest or None), None, _encoder_name(rest, kind) or "splade-tiny")
    if kind in ("cross-encoder", "yes-no", "cohere", "jina", "voyage", "openai-pointwise", "openai-listwise"):
        if not model:
            raise ValueError(f"baseline: {spec!r} names no model; expected {kind}:MODEL")
        if kind == "cross-encoder":
            check("sentence_transformers", extra="evaluate")
            name = Path(rest).resolve().name if Path(rest).exists() else rest
            return Baseline(lambda: _load(kind, rest, model, url), None, name)
        if kind == "yes-no":
            return Baseline(lambda: _load(kind, rest, model, url), None, f"yes-no-{Path(rest).name or rest}")
        service = _load(kind, rest, model, url)  # holds no model; a key that is missing is found now
        return Baseline(lambda: service, None, service.name)
    raise ValueError(f"baseline: {spec!r} is none of {', '.join(BASELINES)}")


def _load(kind: str, rest: str, model: str, url: str | None) -> System:
    if kind == "cross-encoder":
        from prorank.evaluate.systems import CrossEncoderSystem

        return CrossEncoderSystem(rest)
    if kind == "yes-no":
        from prorank.evaluate.systems import RerankerSystem
        from prorank.reranker import Reranker

        reranker = Reranker.from_pretrained(rest, template="qwen3-reranker")
        return RerankerSystem(reranker, name=f"yes-no-{reranker.name}")
    if kind == "openai-pointwise":
        from prorank.evaluate.llm import PointwiseSystem

        return PointwiseSystem(model, url)
    if kind == "openai-listwise":
        from prorank.evaluate.llm import ListwiseSystem

        return ListwiseSystem(model, url)
    from prorank.evaluate.services import RerankServiceSystem

    return RerankServiceSystem(kind, model, url)


def _part_name(part: Part) -> str:
    name = run_name(part.spec) if Path(part.spec).is_file() else part.spec
    return name if part.weight == 1 else f"{part.weight:g}*{name}"


def _encoder_name(model: str, kind: str) -> str:
    """What an encoder is called in a table; empty for the default.

    Raises:
        ValueError: it is a built-in one of another kind.
    """
    row = encoder_row(model, kind)
    return row.name if row is not None else Path(model).name if Path(model).is_dir() else model


def _split_url(rest: str) -> tuple[str, str | None]:
    model, at, url = rest.partition("@http")
    return (model, f"http{url}") if at else (rest, None)
