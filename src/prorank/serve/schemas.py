"""Requests of every wire format, field by field as the services define them; the answers are in :mod:`.answers`.

``instruction``, ``raw_scores`` and what else :class:`_Request` has are our extra fields and are accepted everywhere.
Fields that other services know and that mean nothing here are ignored, as those services do with each other's; wrong
types are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from prorank.ranking import Thresholds
from prorank.serve.explaining import MOST_EXPLAINED

__all__ = [
    "CohereRequest", "InfinityRequest", "ScoreRequest", "TeiRequest", "V1Request", "VoyageRequest",
]  # fmt: skip


def _whole(value: object) -> object:
    """15.0 is an integer in JSON; true and "15" are not."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _spoken(value: object) -> object:
    """RAGFlow and Xinference's clients send true and false as words."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


Switch = Annotated[
    bool,
    BeforeValidator(_spoken),
    WithJsonSchema(
        {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$"}]}
    ),
]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
TopN = Annotated[int, Field(ge=1, description="How many results to return; all by default."), BeforeValidator(_whole)]
TopNOrAll = Annotated[
    int, Field(ge=0, description="How many results to return; 0 (vLLM's default) means all."), BeforeValidator(_whole)
]
TokensOrAll = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
Texts = Annotated[list[str], Field(min_length=1)]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    model: str | None = Field(None, description="Which of the server's models; the default one when absent.")
    instruction: str | None = Field(None, description="What makes a document relevant; replaces the model's default.")
    raw_scores: bool | None = Field(None, description="Scores are margins (logits) instead of probabilities.")
    min_score: float | None = Field(
        None, ge=0, le=1, description="Leave out documents whose probability is below; meta.left_out counts them."
    )
    min_margin: float | None = Field(
        None, allow_inf_nan=False, description="Leave out documents whose margin is below; meta.left_out counts them."
    )

    def common(self) -> dict[str, Any]:
        """What every format asks for alike, by the names of :class:`prorank.serve.work.Work`."""
        return {
            "model": self.model,
            "instruction": self.instruction,
            "raw_scores": bool(self.raw_scores),
            "thresholds": Thresholds.checked(self.min_score, self.min_margin),
        }


class _RerankRequest(_Request):
    query: str = Field(min_length=1)
    return_chunks: bool | None = Field(
        None, description="Adds to each result the part of the document that its score is about, as chunk."
    )
    max_chunks_per_doc: Count | None = Field(
        None, description="Windows of a document at most, the first ones; means nothing to a model without windows."
    )
    max_tokens_per_doc: Count | None = Field(None, description="What lies behind is not read.")
    explain: Annotated[int, Field(ge=1, le=MOST_EXPLAINED), BeforeValidator(_whole)] | None = Field(
        None, description="Adds to so many of the best results their sentences, each with what the margin owes to it."
    )

    def common(self) -> dict[str, Any]:
        """Also what of long documents is read and shown."""
        return {
            **super().common(),
            "return_chunks": bool(self.return_chunks),
            "max_chunks_per_doc": self.max_chunks_per_doc,
            "max_tokens_per_doc": self.max_tokens_per_doc,
            "explain": self._explained,
        }

    @property
    def _explained(self) -> int | None:
        """No more than are shown."""
        shown = getattr(self, "top_n", None) or getattr(self, "top_k", None) or 0
        return self.explain if self.explain is None or shown < 1 else min(self.explain, shown)


_NULL: JsonDict = {"type": "null"}
_OBJECT_WITH_TEXT: JsonDict = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
_TEXT_PART: JsonDict = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_OBJECT_WITH_PARTS: JsonDict = {
    "type": "object",
    "required": ["content"],
    "properties": {"content": {"type": "array", "minItems": 1, "items": _TEXT_PART}},
}
_TEXTS_ARRAY: JsonDict = {
    "type": "array",
    "items": {"anyOf": [{"type": "string"}, _OBJECT_WITH_TEXT, _OBJECT_WITH_PARTS]},
}


_USE_ACTIVATION = Field(None, description="vLLM's name for raw_scores, the other way round: false gives margins.")


class V1Request(_RerankRequest):
    """``POST /v1/rerank``: Jina, Cohere v1, infinity, llama.cpp and vLLM."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["documents"],
                    "properties": {
                        "documents": _TEXTS_ARRAY,
                        "texts": _NULL,
                        "rank_fields": {"anyOf": [_NULL, {"type": "array", "maxItems": 0}]},
                    },
                },
                {  # objects need no "text" where other fields are named
                    "required": ["documents", "rank_fields"],
                    "properties": {
                        "documents": {"type": "array"},
                        "texts": _NULL,
                        "rank_fields": {"type": "array", "minItems": 1},
                    },
                },
                {"required": ["texts"], "properties": {"texts": {"type": "array"}, "documents": _NULL}},
            ]
        }
    )

    documents: Annotated[list[str | dict[str, Any]], Field(min_length=1)] | None = Field(
        None, description="Strings, or objects with a text; all their fields come back with return_documents."
    )
    texts: Texts | None = Field(None, description="llama.cpp's other name for documents.")
    top_n: TopNOrAll | None = None
    return_documents: Switch | None = Field(None, description="Give the documents back; on by default, as at Jina.")
    rank_fields: list[str] | None = Field(
        None, description="Cohere v1: which fields of document objects are read; text by default."
    )
    return_margins: Switch | None = Field(None, description="Adds each result's margin (logit) beside its score.")
    max_tokens_per_doc: TokensOrAll | None = Field(
        None, description="What lies behind is not read; 0 (vLLM's default) means all."
    )
    use_activation: bool | None = _USE_ACTIVATION

    def common(self) -> dict[str, Any]:
        """vLLM's names for ours, too."""
        common = super().common()
        common["raw_scores"] = common["raw_scores"] or self.use_activation is False
        common["max_tokens_per_doc"] = self.max_tokens_per_doc or None
        return common


class InfinityRequest(_RerankRequest):
    """``POST /infinity/rerank``: infinity with its own defaults; documents come back as plain strings."""

    documents: Texts
    top_n: Annotated[int, BeforeValidator(_whole)] | None = Field(
        None, description="How many results to return; 0 and below mean all, as at infinity."
    )
    return_documents: bool | None = Field(None, description="Off by default.")


class CohereRequest(_RerankRequest):
    """``POST /v2/rerank``: Cohere v2."""

    documents: Texts
    top_n: TopN | None = None
    max_tokens_per_doc: Count | None = Field(None, description="What lies behind is not read; 4096 by default.")


class VoyageRequest(_RerankRequest):
    """``POST /voyage/v1/rerank``: Voyage AI."""

    documents: Texts
    top_k: TopN | None = None
    return_documents: bool | None = Field(None, description="Off by default.")
    truncation: bool | None = Field(None, description="Cut what is too long (default), or refuse it.")


class TeiRequest(_RerankRequest):
    """``POST /rerank``: text-embeddings-inference."""

    texts: Texts
    truncate: bool | None = Field(
        None, description="Cut what is too long; by default it is refused with 413 (see --auto-truncate)."
    )
    truncation_direction: Literal["Left", "left", "Right", "right"] | None = Field(
        None, description="Which end of a text that is cut goes: its beginning (Left) or its end (Right, the default)."
    )
    return_text: bool | None = Field(None, description="Off by default.")


class ScoreRequest(_Request):
    """``POST /score``, ``/v1/score``: vLLM. One text_1 for all of text_2, or as many of one as of the other."""

    text_1: str | Texts
    text_2: str | Texts
    use_activation: bool | None = _USE_ACTIVATION

    def common(self) -> dict[str, Any]:
        """vLLM's name for ours, too."""
        common = super().common()
        return {**common, "raw_scores": common["raw_scores"] or self.use_activation is False}
