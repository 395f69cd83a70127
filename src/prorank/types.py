"""The shapes that travel between modules; imports nothing of ours.

Names follow the information-retrieval vocabulary (``query_id``, ``doc_id``, ``relevance``,
``score``), as in TREC files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "Document",
    "DocumentLike",
    "EncodedGroup",
    "Qrels",
    "Query",
    "RankResult",
    "Run",
    "as_document",
    "as_documents",
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
"""A text; a :class:`Document`; or a mapping with ``text``, and optionally ``title`` and ``_id``/``doc_id``/``id``."""


def as_documents(documents: Iterable[DocumentLike]) -> list[Document]:
    """A list of any of these, a pandas or numpy column, or an Arrow array or table (with a column ``text``).

    Raises:
        ValueError: it is one document and no list, or one of them is none; the message names its index.
    """
    if isinstance(documents, str | Document | Mapping):
        raise ValueError(f"documents: expected a list of documents, got one {type(documents).__name__}")
    rows = documents.to_pylist() if hasattr(documents, "to_pylist") else documents
    return [as_document(document, index) for index, document in enumerate(rows)]


def as_document(document: DocumentLike, index: int) -> Document:
    """Any of these as a :class:`Document`; ``index`` is its id where it has none.

    Raises:
        ValueError: there is no text; the message names the index.
    """
    if isinstance(document, str):
        return Document(str(index), document)
    if isinstance(document, Document):
        return document
    if isinstance(document, Mapping):
        text = document.get("text")
        if not isinstance(text, str):
            raise ValueError(f"document {index}: expected a string under 'text', got {type(text).__name__}")
        ids = [document[key] for key in ("doc_id", "_id", "id") if document.get(key) is not None]
        return Document(str(ids[0] if ids else index), text, str(document.get("title") or ""))
    raise ValueError(f"document {index}: expected a string or a mapping with 'text', got {type(document).__name__}")


class Query(NamedTuple):
    """One information need."""

    query_id: str
    text: str


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
