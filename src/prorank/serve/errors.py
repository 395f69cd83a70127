"""What can go wrong with a request, and how each wire format says it.

An :class:`ApiError` carries the facts (status, kind, message); a body function per format lays them out. Messages name
the field and what was expected, never the value: bodies hold people's texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

__all__ = ["ERROR_BODIES", "ApiError", "Kind"]

Kind = Literal[
    "invalid", "too_large", "too_long", "overloaded", "timeout", "unavailable", "unauthorized", "not_found", "internal"
]


class ApiError(Exception):
    """A request that gets no scores.

    Args:
        status: the HTTP status; ``invalid`` requests get each format's own one (see ``INVALID_STATUS``).
        retry_after: seconds after which a client should try again.
    """

    def __init__(
        self, status: int, kind: Kind, message: str, *, retry_after: float | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.retry_after = retry_after
        self.param = param


INVALID_STATUS: Mapping[str, int] = {
    "cohere": 400,
    "voyage": 400,
    "score": 400,
    "infinity": 422,
    "tei": 422,
    "v1": 422,
    "plain": 422,
}
"""Status of a body that does not fit the schema, where the services differ."""

_TEI_TYPES: Mapping[Kind, str] = {
    "invalid": "Validation", "too_large": "Validation", "too_long": "Validation", "overloaded": "Overloaded",
    "timeout": "Overloaded", "unavailable": "Unhealthy", "unauthorized": "Unauthorized", "not_found": "Validation",
    "internal": "Backend",
}  # fmt: skip
_OPENAI_TYPES: Mapping[Kind, str] = {
    "invalid": "BadRequestError", "too_large": "BadRequestError", "too_long": "BadRequestError",
    "overloaded": "RateLimitError", "timeout": "ServiceUnavailableError", "unavailable": "ServiceUnavailableError",
    "unauthorized": "AuthenticationError", "not_found": "NotFoundError", "internal": "InternalServerError",
}  # fmt: skip


def _openai(error: ApiError) -> dict[str, Any]:
    return {"message": error.message, "type": _OPENAI_TYPES[error.kind], "param": error.param, "code": error.status}


def _cohere(error: ApiError, request_id: str) -> dict[str, Any]:
    return {"message": error.message, "id": request_id}


def _voyage(error: ApiError, _: str) -> dict[str, Any]:
    return {"detail": error.message}


def _tei(error: ApiError, _: str) -> dict[str, Any]:
    return {"error": error.message, "error_type": _TEI_TYPES[error.kind]}


def _score(error: ApiError, _: str) -> dict[str, Any]:
    return {"error": _openai(error)}


def _v1(error: ApiError, request_id: str) -> dict[str, Any]:
    # Jina clients read "detail", Cohere v1 clients "message", infinity and llama.cpp clients "error": all are there.
    return {"detail": error.message, "message": error.message, "id": request_id, "error": _openai(error)}


ERROR_BODIES: Mapping[str, Callable[[ApiError, str], dict[str, Any]]] = {
    "cohere": _cohere, "voyage": _voyage, "tei": _tei, "score": _score, "infinity": _score, "v1": _v1, "plain": _v1,
}  # fmt: skip
"""(error, request id) -> JSON body, by wire format."""
