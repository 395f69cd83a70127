"""Answers and errors of every wire format, for the OpenAPI schema."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

__all__ = [
    "CohereAnswer", "CohereError", "InfinityAnswer", "ModelList", "ScoreAnswer", "ScoreError", "TeiError", "TeiResult",
    "V1Answer", "V1Error", "VoyageAnswer", "VoyageError",
]  # fmt: skip


class Chunk(BaseModel):
    text: str
    start: int
    end: int


class Sentence(BaseModel):
    text: str
    start: int
    end: int
    weight: float


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class V1Result(BaseModel):
    index: int
    relevance_score: float
    document: dict[str, Any] | None = None
    margin: float | None = None
    chunk: Chunk | None = None
    sentences: list[Sentence] | None = None


class V1Answer(BaseModel):
    id: str
    object: Literal["rerank", "list"]
    created: int
    model: str
    usage: Usage
    results: list[V1Result]
    meta: dict[str, Any]


class InfinityResult(BaseModel):
    index: int
    relevance_score: float
    document: str | None = None
    chunk: Chunk | None = None
    sentences: list[Sentence] | None = None


class InfinityAnswer(BaseModel):
    id: str
    object: Literal["rerank"]
    created: int
    model: str
    usage: Usage
    results: list[InfinityResult]
    meta: dict[str, Any] | None = None


class CohereResult(BaseModel):
    index: int
    relevance_score: float
    chunk: Chunk | None = None
    sentences: list[Sentence] | None = None


class CohereAnswer(BaseModel):
    id: str
    results: list[CohereResult]
    meta: dict[str, Any]


class VoyageResult(BaseModel):
    index: int
    relevance_score: float
    document: str | None = None
    chunk: Chunk | None = None
    sentences: list[Sentence] | None = None


class VoyageUsage(BaseModel):
    total_tokens: int


class VoyageAnswer(BaseModel):
    object: Literal["list"]
    data: list[VoyageResult]
    model: str
    usage: VoyageUsage
    meta: dict[str, Any] | None = None


class TeiResult(BaseModel):
    index: int
    score: float
    text: str | None = None
    chunk: Chunk | None = None
    sentences: list[Sentence] | None = None


class ScoreResult(BaseModel):
    index: int
    object: Literal["score"]
    score: float


class ScoreAnswer(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoreResult]
    usage: Usage
    meta: dict[str, Any] | None = None


class ModelEntry(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    default: bool
    loaded: bool
    details: dict[str, Any]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelEntry]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: int


class V1Error(BaseModel):
    """Holds what Jina (``detail``), Cohere v1 (``message``) and infinity or llama.cpp (``error``) clients read."""

    detail: str
    message: str
    id: str
    error: ErrorDetail


class CohereError(BaseModel):
    message: str
    id: str


class VoyageError(BaseModel):
    detail: str


class TeiError(BaseModel):
    error: str
    error_type: str


class ScoreError(BaseModel):
    error: ErrorDetail
