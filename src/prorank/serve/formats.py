"""The wire formats: from a body to the work it asks for, and from scores to the answer its clients expect.

A :class:`Format` knows names and defaults only; limits, models and scoring are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from prorank.serve import answers, schemas
from prorank.serve.document_objects import object_text
from prorank.serve.errors import INVALID_STATUS, ApiError
from prorank.serve.pairs import score_answer, score_work
from prorank.serve.work import ScoredWork, Work

__all__ = ["FORMATS", "ROUTES", "Format", "ScoredWork", "Work", "parse"]

DEFAULT_MAX_TOKENS_PER_DOC = 4096


@dataclass(frozen=True)
class Format:
    """One service's way of asking and answering."""

    name: str
    request: type[BaseModel]
    answer: Any
    """pydantic type of the answer, for the schema."""
    error: type[BaseModel]
    work: Callable[[Any], Work]
    lay_out: Callable[[Any, ScoredWork], Any]

    def invalid(self, message: str, param: str | None = None) -> ApiError:
        """The error for a body that does not fit."""
        return ApiError(INVALID_STATUS[self.name], "invalid", message, param=param)


# -- v1: Jina, Cohere v1, infinity, llama.cpp ------------------------------------------------------------------------


def _v1_texts(request: schemas.V1Request) -> list[str]:
    if request.documents is None:
        return list(request.texts or ())
    return [
        one if isinstance(one, str) else object_text(one, request.rank_fields or (), f"documents.{index}")
        for index, one in enumerate(request.documents)
    ]


def _v1_work(request: schemas.V1Request) -> Work:
    if (request.documents is None) == (request.texts is None):
        raise FORMATS["v1"].invalid("documents: required (or texts, but not both)", "documents")
    return Work([(request.query, _v1_texts(request))], **request.common())


def _v1_answer(request: schemas.V1Request, outcome: ScoredWork) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    given: Sequence[str | Mapping[str, Any]] = request.documents or request.texts or ()
    for index, score, margin, more in outcome.best(request.top_n or None):
        result: dict[str, Any] = {"index": index, "relevance_score": score, **more}
        if request.return_documents is not False:
            one = given[index]
            result["document"] = {"text": one} if isinstance(one, str) else one
        if request.return_margins:
            result["margin"] = margin
        results.append(result)
    return {
        "id": outcome.request_id,
        "object": "rerank" if request.documents is not None else "list",
        "created": outcome.created,
        "model": outcome.model,
        "usage": outcome.usage,
        "results": results,
        "meta": {"api_version": {"version": "1"}, **outcome.meta},
    }


def _meta(outcome: ScoredWork) -> dict[str, Any]:
    """For the formats whose own answers have no metadata."""
    return {"meta": outcome.meta} if outcome.meta else {}


# -- infinity --------------------------------------------------------------------------------------------------------


def _infinity_work(request: schemas.InfinityRequest) -> Work:
    return Work([(request.query, request.documents)], **request.common())


def _infinity_answer(request: schemas.InfinityRequest, outcome: ScoredWork) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for index, score, _, more in outcome.best(request.top_n if request.top_n and request.top_n > 0 else None):
        results.append({"index": index, "relevance_score": score, **more})
        if request.return_documents:
            results[-1]["document"] = request.documents[index]
    return {
        "id": outcome.request_id,
        "object": "rerank",
        "created": outcome.created,
        "model": outcome.model,
        "usage": outcome.usage,
        "results": results,
        **_meta(outcome),
    }


# -- Cohere v2 -------------------------------------------------------------------------------------------------------


def _cohere_work(request: schemas.CohereRequest) -> Work:
    work = Work([(request.query, request.documents)], **request.common())
    return work._replace(max_tokens_per_doc=work.max_tokens_per_doc or DEFAULT_MAX_TOKENS_PER_DOC)


def _cohere_answer(request: schemas.CohereRequest, outcome: ScoredWork) -> dict[str, Any]:
    results = [
        {"index": index, "relevance_score": score, **more} for index, score, _, more in outcome.best(request.top_n)
    ]
    meta = {"api_version": {"version": "2"}, "tokens": {"input_tokens": outcome.tokens}, **outcome.meta}
    return {"id": outcome.request_id, "results": results, "meta": meta}


# -- Voyage ----------------------------------------------------------------------------------------------------------


def _voyage_work(request: schemas.VoyageRequest) -> Work:
    return Work(
        [(request.query, request.documents)], **request.common(),
        cut=request.truncation is not False,
    )  # fmt: skip


def _voyage_answer(request: schemas.VoyageRequest, outcome: ScoredWork) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for index, score, _, more in outcome.best(request.top_k):
        data.append({"index": index, "relevance_score": score, **more})
        if request.return_documents:
            data[-1]["document"] = request.documents[index]
    usage = {"total_tokens": outcome.tokens}
    return {"object": "list", "data": data, "model": outcome.model, "usage": usage, **_meta(outcome)}


# -- text-embeddings-inference ---------------------------------------------------------------------------------------


def _tei_work(request: schemas.TeiRequest) -> Work:
    return Work(
        [(request.query, request.texts)], **request.common(),
        cut=request.truncate, keep_end=request.truncation_direction in ("Left", "left"),
    )  # fmt: skip


def _tei_answer(request: schemas.TeiRequest, outcome: ScoredWork) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for index, score, _, more in outcome.best(None):
        results.append({"index": index, "score": score, **more})
        if request.return_text:
            results[-1]["text"] = request.texts[index]
    return results


_ALL = (
    Format("v1", schemas.V1Request, answers.V1Answer, answers.V1Error, _v1_work, _v1_answer),
    Format(
        "infinity",
        schemas.InfinityRequest,
        answers.InfinityAnswer,
        answers.ScoreError,
        _infinity_work,
        _infinity_answer,
    ),
    Format("cohere", schemas.CohereRequest, answers.CohereAnswer, answers.CohereError, _cohere_work, _cohere_answer),
    Format("voyage", schemas.VoyageRequest, answers.VoyageAnswer, answers.VoyageError, _voyage_work, _voyage_answer),
    Format("tei", schemas.TeiRequest, list[answers.TeiResult], answers.TeiError, _tei_work, _tei_answer),
    Format("score", schemas.ScoreRequest, answers.ScoreAnswer, answers.ScoreError, score_work, score_answer),
)
FORMATS: Mapping[str, Format] = {one.name: one for one in _ALL}

ROUTES: Mapping[str, tuple[str, ...]] = {
    "/v1/rerank": ("v1",),
    "/v2/rerank": ("cohere",),
    "/voyage/v1/rerank": ("voyage",),
    "/infinity/rerank": ("infinity",),
    "/rerank": ("tei", "v1"),
    "/reranking": ("tei", "v1"),
    "/v1/reranking": ("tei", "v1"),
    "/score": ("score",),
    "/v1/score": ("score",),
}
"""Path -> the formats it speaks; a body is of the second where it has ``documents`` (infinity, vLLM, llama.cpp)."""


def parse(path: str, body: bytes) -> tuple[Format, Any, Work]:
    """Read a body sent to ``path``.

    Raises:
        ApiError: it is not JSON, or does not fit the format's schema; the message names the field, not its value.
    """
    format_ = FORMATS[ROUTES[path][0]]
    try:
        data = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise format_.invalid(f"the body is not valid JSON: {_reason(error)}") from None
    if len(ROUTES[path]) > 1 and isinstance(data, dict) and "documents" in data:
        format_ = FORMATS[ROUTES[path][1]]
    if not isinstance(data, dict):
        raise format_.invalid("the body must be a JSON object")
    try:
        request = format_.request.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in _FIELDS)
        raise format_.invalid(f"{where}: {first['msg']}", where) from None
    return format_, request, format_.work(request)


_FIELDS = frozenset(name for one in FORMATS.values() for name in one.request.model_fields)


def _reason(error: ValueError) -> str:
    """The parser's reason without any of the text it choked on."""
    return str(error).split(":")[0].strip()[:120]
