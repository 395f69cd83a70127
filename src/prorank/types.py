"""The shapes that travel between modules; imports nothing of ours.

Names follow the information-retrieval vocabulary (``query_id``, ``doc_id``, ``relevance``,
``score``), as in TREC files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NamedTuple

__all__ = [
    "ID_FIELDS",
    "TEXT_FIELDS",
    "Chunk",
    "Document",
    "DocumentLike",
    "EncodedGroup",
    "Qrels",
    "Query",
    "RankResult",
    "Run",
    "SentenceWeight",
    "as_document",
    "as_documents",
    "columns_of_documents",
    "document_of",
    "is_absent",
    "label",
]

Qrels = Mapping[str, Mapping[str, int]]
"""query_id -> doc_id -> relevance (0 irrelevant, higher is more relevant)."""

Run = Mapping[str, Mapping[str, float]]
"""query_id -> doc_id -> score; the mapping's own order is the rank order (ties are already resolved)."""


class Document(NamedTuple):
    """One passage to be ranked."""

    doc_id: str
    """Unique within its collection."""
    text: str
    title: str = ""

    @property
    def content(self) -> str:
        """Title and text joined by a space: what every first stage and reranker reads."""
        return f"{self.title} {self.text}" if self.title else self.text


DocumentLike = str | Document | Mapping[str, Any]
"""A text; a :class:`Document`; or a mapping with a text and optionally a title and an id (`document_of`)."""

TEXT_FIELDS = ("text", "content", "contents", "passage", "document", "body")
"""Names of the field that holds a document's text; the first one given counts."""

ID_FIELDS = ("_id", "doc_id", "docid", "docno", "pid", "id")
"""Names of the field that holds a document's id; the first one given counts."""


def as_documents(documents: Iterable[DocumentLike]) -> list[Document]:
    """A list of any of these, a pandas or numpy column, an Arrow array, or a whole frame or table.

    A frame (pandas, polars) or an Arrow table is read by its columns, whose names are those of `document_of` in any
    case; of pandas the name of the index counts, too.

    Raises:
        ValueError: it is one document and no list, one of them is none (the message names its index), or a frame has no
            column with texts.
    """
    if isinstance(documents, str | Document | Mapping):
        raise ValueError(f"documents: expected a list of documents, got one {type(documents).__name__}")
    return [as_document(document, index) for index, document in enumerate(_rows(documents))]


def as_document(document: DocumentLike, index: int) -> Document:
    """Any of these as a :class:`Document`; ``index`` is its id where it has none.

    Raises:
        ValueError: there is no text, or a field is of the wrong kind; the message names the index.
    """
    if isinstance(document, str):
        return Document(str(index), str(document))
    if isinstance(document, Document):
        return document
    if isinstance(document, Mapping):
        try:
            return document_of(document, str(index))
        except ValueError as error:
            raise ValueError(f"document {index}: {error}") from None
    raise ValueError(f"document {index}: expected a string or a mapping with 'text', got {type(document).__name__}")


def document_of(
    fields: Mapping[str, Any],
    default_id: str,
    *,
    texts: Sequence[str] = TEXT_FIELDS,
    ids: Sequence[str] = ID_FIELDS,
) -> Document:
    """The document in a row of named values; None and NaN count as absent.

    Args:
        fields: ``title`` and one of ``texts`` and ``ids`` are read, others ignored.
        default_id: where no id is given.

    Raises:
        ValueError: there is no text, the text is no string, or the title or id is neither a string nor a number.
    """
    text = next((fields[name] for name in texts if not is_absent(fields.get(name))), None)
    if not isinstance(text, str):
        found = "nothing" if text is None else type(text).__name__
        keys = ", ".join(map(str, fields)) or "none"
        raise ValueError(f"expected a string under {texts[0]!r}, got {found} (keys: {keys:.200})")
    doc_id = next((label(fields[name], name) for name in ids if not is_absent(fields.get(name))), default_id)
    return Document(doc_id, str(text), label(fields.get("title"), "title"))


def is_absent(value: Any) -> bool:
    """Whether a value stands for "not given": None, NaN, and what pandas has in their place."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real | Decimal) and bool(value != value)


def label(value: Any, name: str) -> str:
    """A title or an id as text: a string as it is, a number as digits (1.0 as "1"), "" where it is absent.

    Raises:
        ValueError: it is neither a string nor a number; the message says ``name``.
    """
    if is_absent(value):
        return ""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise ValueError(f"the field {name!r} must be a string or a number, got {type(value).__name__}")
    # pandas makes floats of whole numbers as soon as one is missing in their column
    number: Any = value
    whole = isinstance(value, Integral) or (math.isfinite(number) and number == int(number))
    return str(int(number)) if whole else str(number)


def columns_of_documents(names: Iterable[Any]) -> dict[str, Any]:
    """Which columns of a table to read: field name in lower case -> the table's own name for it.

    Raises:
        ValueError: no column holds texts, or two have the same name.
    """
    given = list(names)
    found: dict[str, Any] = {}
    for name in given:
        field = str(name).strip().lower()
        if field in (*TEXT_FIELDS, *ID_FIELDS, "title"):
            if field in found:
                raise ValueError(f"two columns named {field!r}")
            found[field] = name
    if not any(field in TEXT_FIELDS for field in found):
        wanted = ", ".join(TEXT_FIELDS)
        raise ValueError(f"no column with texts (one of {wanted}), only {', '.join(map(str, given)) or 'none at all'}")
    return found


def _rows(documents: Any) -> Iterable[Any]:
    """What to iterate over: a frame itself would give the names of its columns."""
    kind = type(documents).__name__
    if hasattr(documents, "to_pylist"):  # Arrow
        if not hasattr(documents, "schema"):
            rows: list[Any] = documents.to_pylist()
            return rows
        names = list(documents.schema.names)
    elif hasattr(type(documents), "columns"):
        if not hasattr(documents, "to_dict") and not hasattr(documents, "to_dicts"):
            raise ValueError(f"documents: a {kind} is not read; collect it, or give its rows as a list")
        names = list(documents.columns)
    else:
        iterable: Iterable[Any] = documents
        return iterable
    try:
        fields = columns_of_documents(names)
    except ValueError as error:
        raise ValueError(f"documents: the {kind} has {error}") from None
    columns = {field: _values(documents[name]) for field, name in fields.items()}
    index = getattr(getattr(documents, "index", None), "name", None)
    if str(index).lower() in ID_FIELDS and not any(field in ID_FIELDS for field in columns):
        columns[str(index).lower()] = list(documents.index)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: Any) -> list[Any]:
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)


class Query(NamedTuple):
    """One information need."""

    query_id: str
    text: str


class Chunk(NamedTuple):
    """A part of a document: what a prompt held of it."""

    text: str
    start: int
    """First character, counted in the document's :attr:`Document.content`."""
    end: int
    """Behind the last one: ``content[start:end] == text``."""


class SentenceWeight(NamedTuple):
    """A sentence of a document, and what the document's margin owes to it."""

    text: str
    start: int
    """First character, counted in the document's :attr:`Document.content`."""
    end: int
    """Behind the last one: ``content[start:end] == text``."""
    weight: float
    """The document's margin minus its margin without this sentence: above 0 it speaks for the document."""


class RankResult(NamedTuple):
    """One document's place in a reranked list."""

    index: int  # type: ignore[assignment]
    """Position of the document in the input list, from 0."""
    doc_id: str
    """The document's own id, or its index as a string where it came without one."""
    margin: float
    """logit(label_ids[1]) - logit(label_ids[0]) at the last position, float32: the only number ranked by."""
    probability: float
    """sigmoid(a * margin + b), for presentation only."""
    text: str | None = None
    """The document's text; None where documents were not asked back."""
    chunk: Chunk | None = None
    """The part of it that its margin is about; None where it was not asked for."""
    sentences: tuple[SentenceWeight, ...] | None = None
    """Its sentences in their order with their weights; None where they were not asked for (``explain``)."""


class EncodedGroup(NamedTuple):
    """Token ids of several prompts that start alike: what a backend scores.

    Prompt i is ``prefix_ids + own_ids[i]``. Every row is scored at its last token.
    """

    prefix_ids: Sequence[int]
    """Ids shared by all rows (instruction and query); may be empty."""
    own_ids: Sequence[Sequence[int]]
    """Per row the ids after the prefix (document and suffix); never empty."""
    instruction_length: int = 0
    """How many of ``prefix_ids`` depend on the instruction alone: shared between queries."""
