"""One row of a training file, by the names that tools in use give its fields. Knows no file.

- The query: ``query``, ``anchor`` or ``question``; a string, or an object with a text and an id; the id may stand
  beside it as ``query_id`` (``qid``).
- Lists: ``documents`` (``docs``, ``passages``), with ``relevance`` (``labels``, ``label``) and ``scores`` as lists
  beside them, or inside the documents.
- Positives and negatives: ``positive``, ``pos``, ``negative``, ``hard_negatives``, ... ; numbered (``negative_1``) as
  sentence-transformers writes them; ``positive_passages`` as Tevatron does, ``hard_negative_ctxs`` as DPR,
  ``pos_scores`` and ``neg_scores`` as FlagEmbedding. A key that begins alike and is none of these is refused, so that
  no text is lost.
- Pairs: without a positive, ``answer``, ``response``, ``passage`` or another name of a document's text is the positive.

A document is a string, or an object with a text, title and id by the names of `prorank.types.document_of`, and
optionally ``relevance`` and ``score``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

from prorank.types import ID_FIELDS, TEXT_FIELDS, Document, document_of, is_absent, label

__all__ = ["Entry", "read_row"]

_QUERIES = ("query", "anchor", "question")
_QUERY_IDS = ("query_id", "qid")
_LISTS = ("documents", "docs", "passages")
_LABELS = ("relevance", "labels", "label")
_SCORES = ("scores", "score")
_ANSWERS = ("answer", "response", *TEXT_FIELDS)
"""The positive's name in files of pairs."""

_SIDED = re.compile(r"(hard_?)?(pos|neg)")
_SIDE = r"(?:(pos)(?:itive)?|(?:hard_?)?neg(?:ative)?)s?"
_TEXTS = re.compile(_SIDE + r"(?:_(?:text|passage|document|doc|context|ctx)s?)?(?:_?\d+)?")
_SIDE_SCORES = re.compile(_SIDE + r"_scores?")
_SIDE_IDS = re.compile(_SIDE + r"_(?:doc_?)?ids?")


class Entry(NamedTuple):
    """A document of a row; its ``doc_id`` is empty where it came without one."""

    document: Document
    relevance: int | None
    score: float | None


def read_row(row: Mapping[str, Any]) -> tuple[str, str, list[Entry]]:
    """(query, its id or "", its documents: positives first where the row tells two sides).

    Raises:
        ValueError: a field is missing, of the wrong kind or not understood.
    """
    fields: dict[str, Any] = {}
    for key, value in row.items():
        name = key.lower().replace("-", "_")
        if name in fields:
            raise ValueError(f"two fields are named {name!r}")
        fields[name] = value
    text, query_id = _query(fields)
    entries = _entries(fields)
    return text, query_id, entries


def _query(fields: Mapping[str, Any]) -> tuple[str, str]:
    value = next((fields[name] for name in _QUERIES if not is_absent(fields.get(name))), None)
    query_id = next((label(fields[name], name) for name in _QUERY_IDS if not is_absent(fields.get(name))), "")
    if isinstance(value, Mapping):
        ids = [label(value[name], name) for name in (*_QUERY_IDS, *ID_FIELDS) if not is_absent(value.get(name))]
        value, query_id = value.get("text"), ids[0] if ids else query_id
    if not isinstance(value, str):
        raise ValueError("the field 'query' must be a string, or an object with 'text'")
    return value, query_id


def _entries(fields: Mapping[str, Any]) -> list[Entry]:
    sided = [name for name in fields if _SIDED.match(name) and not is_absent(fields[name])]
    listed = next((name for name in _LISTS if name in fields), None)
    if listed is not None:
        if sided:
            raise ValueError(f"expected either {listed!r} or {sided[0]!r}, got both")
        if not isinstance(fields[listed], list):
            raise ValueError(f"the field {listed!r} must be a list")
        return _list(fields, fields[listed], listed)
    for name in sided:
        if not any(pattern.fullmatch(name) for pattern in (_TEXTS, _SIDE_SCORES, _SIDE_IDS)):
            raise ValueError(
                f"the field {name!r} is not understood (known: positive, pos, positives, positive_1, "
                "positive_passages, pos_scores, pos_ids, and the same with negative, neg, hard_negative)"
            )
    sides = [name for name in sided if _TEXTS.fullmatch(name)]
    if not any(_is_positive(name) for name in sides):
        sides = [name for name in _ANSWERS if not is_absent(fields.get(name))][:1] + sides
    if not sides:
        raise ValueError("expected 'documents', or 'positive' and 'negative'")
    only = fields[sides[0]] if len(sides) == 1 else None
    if only is not None and (_given(fields, _LABELS) or _given(fields, _SCORES)):
        # sentence-transformers' labelled formats: the column is named "positive" and holds both kinds
        if not _given(fields, _LABELS):
            raise ValueError(f"scores beside {sides[0]!r} alone do not say what is relevant: give 'labels', too")
        return _list(fields, only if isinstance(only, list) else [only], sides[0])
    return _two_sides(fields, sides)


def _list(fields: Mapping[str, Any], documents: list[Any], name: str) -> list[Entry]:
    labels = _beside(fields, _LABELS, len(documents), name)
    scores = _beside(fields, _SCORES, len(documents), name)
    return [_entry(d, r, s) for d, r, s in zip(documents, labels, scores, strict=True)]


def _two_sides(fields: Mapping[str, Any], names: list[str]) -> list[Entry]:
    found = []
    for relevance in (1, 0):
        mine = [name for name in names if bool(relevance) == (_is_positive(name) or name in _ANSWERS)]
        mine.sort(key=_number)
        values = [value for name in mine for value in _as_list(fields[name])]
        kind = " and ".join(mine) or ("positive" if relevance else "negative")
        other = [name for name in fields if _is_positive(name) == bool(relevance) and fields[name] != []]
        scores = _beside(fields, tuple(n for n in other if _SIDE_SCORES.fullmatch(n)), len(values), kind)
        ids = _beside(fields, tuple(n for n in other if _SIDE_IDS.fullmatch(n)), len(values), kind)
        for value, doc_id, score in zip(values, ids, scores, strict=True):
            if not is_absent(value):  # a shorter row's empty columns
                entry = _entry(value, relevance, score)
                given = entry.document.doc_id or label(doc_id, "id")
                found.append(entry._replace(document=entry.document._replace(doc_id=given)))
    scored = next((fields[name] for name in _SCORES if isinstance(fields.get(name), list)), None)
    if scored is None:
        return found
    scores = _beside(fields, _SCORES, len(found), "the positives and negatives")
    return [entry._replace(score=_score(score)) for entry, score in zip(found, scores, strict=True)]


def _is_positive(name: str) -> bool:
    return name.startswith("pos")


def _number(name: str) -> int:
    digits = re.search(r"\d+$", name)
    return int(digits[0]) if digits else -1


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _given(fields: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return any(not is_absent(fields.get(name)) for name in names)


def _beside(fields: Mapping[str, Any], names: tuple[str, ...], length: int, what: str) -> list[Any]:
    for name in names:
        if is_absent(fields.get(name)):
            continue
        values = _as_list(fields[name])
        if len(values) != length:
            raise ValueError(f"the field {name!r} must be a list as long as {what!r} ({length})")
        return values
    return [None] * length


def _entry(value: Any, relevance: Any, score: Any) -> Entry:
    if isinstance(value, Mapping):
        document = document_of(value, "")
        relevance, score = value.get("relevance", relevance), value.get("score", score)
    elif isinstance(value, str):
        document = Document("", value)
    else:
        raise ValueError("a document must be a string, or an object with 'text' (and 'title') as strings")
    return Entry(document, _relevance(relevance), _score(score))


def _relevance(value: Any) -> int | None:
    if value is None:
        return None
    number = _finite(value)
    if number is None or not number.is_integer():
        raise ValueError(f"a relevance must be an integer, got {value!r:.60}")
    return int(number)


def _score(value: Any) -> float | None:
    if value is None:
        return None
    number = _finite(value)
    if number is None:
        raise ValueError(f"a score must be a finite number, got {value!r:.60}")
    return number


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
