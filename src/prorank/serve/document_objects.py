"""What is read of a document that a request gives as an object (Cohere v1, Jina): its text, or the fields it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prorank.serve.errors import INVALID_STATUS, ApiError

__all__ = ["object_text"]


def object_text(document: Mapping[str, Any], rank_fields: Sequence[str], where: str) -> str:
    """The string under ``text``; with ``rank_fields`` a line ``name: value`` for each of these that is there.

    Args:
        where: the document's place in the request, for messages.

    Raises:
        ApiError: ``text`` is read and is no string; none of the fields is there; or one is neither text nor number.
    """
    if (not rank_fields or "text" in rank_fields) and not isinstance(document.get("text"), str):
        other = "" if rank_fields else "; or name the fields to read in rank_fields"
        raise _invalid(f"{where}: expected a string under text{other}", where)
    if not rank_fields:
        return str(document["text"])
    lines = []
    for name in rank_fields:
        value = document.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise _invalid(f"{where}: expected a string or a number under every field that rank_fields name", where)
        if value is not None:
            lines.append(f"{name}: {value}")
    if not lines:
        raise _invalid(f"{where}: expected at least one of the fields that rank_fields name", where)
    return "\n".join(lines)


def _invalid(message: str, param: str) -> ApiError:
    return ApiError(INVALID_STATUS["v1"], "invalid", message, param=param)
