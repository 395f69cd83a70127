"""What is read of a document that a request gives as an object (Cohere v1, Jina): its text, or the fields it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prorank.serve.errors import INVALID_STATUS, ApiError

__all__ = ["object_text"]


def object_text(document: Mapping[str, Any], rank_fields: Sequence[str], where: str) -> str:
    """The string under ``text``, or the texts of vLLM's ``content`` parts; with ``rank_fields`` lines ``name: value``.

    Of fields that ``rank_fields`` names and the document lacks there is no line.

    Args:
        where: the document's place in the request, for messages.

    Raises:
        ApiError: ``text`` is read and is no string; none of the fields is there; or one is neither text nor number.
    """
    if not rank_fields and not isinstance(document.get("text"), str) and "content" in document:
        return _parts_text(document["content"], where)
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


def _parts_text(parts: Any, where: str) -> str:
    """vLLM's documents in parts (Dify sends them where a model is marked as seeing pictures): their texts, by line."""
    texts = [
        part["text"]
        for part in (parts if isinstance(parts, list) else [])
        if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
    ]
    if not texts or len(texts) != len(parts):
        raise _invalid(f'{where}: expected content to be parts of the type "text"; pictures are not read', where)
    return "\n".join(texts)


def _invalid(message: str, param: str) -> ApiError:
    return ApiError(INVALID_STATUS["v1"], "invalid", message, param=param)
