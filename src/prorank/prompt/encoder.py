"""Prompts as token ids.

A :class:`PromptTemplate` is a list of pieces, nothing executable. :class:`PromptEncoder` tokenises each piece on its
own and joins them as ids, so that (1) instruction and query give one prefix shared by all documents of a query,
(2) text from outside can never turn into a special token, (3) truncation is exact: the suffix is never cut, the query
is cut at its own limit, the document takes the rest. It knows no model and no score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

from prorank.prompt.encoded import Encoded
from prorank.prompt.excerpts import READ_TOKENS, Excerpter
from prorank.prompt.template import Piece, PromptTemplate, TemplateError
from prorank.prompt.text import TextEncoder
from prorank.types import Chunk, EncodedGroup

__all__ = ["DEFAULT_MAX_LENGTH", "Encoded", "LongDocuments", "PromptEncoder"]

DEFAULT_MAX_LENGTH = 512
"""Tokens of a whole prompt where nobody says otherwise."""

LongDocuments = Literal["truncate", "excerpt", "max_window"]


class PromptEncoder:
    """(query, documents) -> token ids, for one tokenizer and one template.

    Args:
        tokenizer: a transformers tokenizer.
        template: the prompt.
        max_length: tokens of a whole prompt, template included.
        query_max_length: tokens of the query's piece; default ``template.query_share * max_length``.
        document_max_length: tokens of the document's piece; default all the room that is left.
        long_documents: ``truncate`` keeps the beginning; ``excerpt`` the beginning and the sentences that share the
            query's words (:mod:`.excerpts`); ``max_window`` scores overlapping windows (a quarter of a window is
            repeated) and the caller takes the best one.

    Raises:
        TemplateError: a label word is not exactly one token, or the template leaves no room for a document.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: PromptTemplate,
        *,
        max_length: int = DEFAULT_MAX_LENGTH,
        query_max_length: int | None = None,
        document_max_length: int | None = None,
        long_documents: LongDocuments = "truncate",
    ) -> None:
        if long_documents not in get_args(LongDocuments):
            raise ValueError(
                f"long_documents must be one of {', '.join(get_args(LongDocuments))}, got {long_documents!r}"
            )
        if query_max_length is not None and query_max_length < 1:
            raise ValueError(f"query_max_length must be at least 1, got {query_max_length}")
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        self.query_max_length = query_max_length or max(1, int(max_length * template.query_share))
        self.document_max_length = document_max_length or max_length
        self.long_documents = long_documents
        static = "".join(piece.text for piece in template.pieces if piece.kind == "static")
        self._encode_text = TextEncoder(tokenizer, static)
        self._excerpt = Excerpter(tokenizer)
        self._pieces: list[tuple[Piece, list[int]]] = [
            (piece, _static_ids(tokenizer, piece.text) if piece.kind == "static" else []) for piece in template.pieces
        ]
        self._document_at = next(i for i, (p, _) in enumerate(self._pieces) if "{document}" in _fields(p))
        self.suffix_ids = [i for piece, ids in self._pieces[self._document_at + 1 :] for i in self._filled(piece, ids)]
        self.label_ids: tuple[int, int] = (
            self._single_id(template.label_words[0]),
            self._single_id(template.label_words[1]),
        )
        if self.label_ids[0] == self.label_ids[1]:
            raise TemplateError(f"label words {template.label_words} map to the same token id {self.label_ids[0]}")
        end = _static_ids(tokenizer, template.answer_end)
        if not end:
            raise TemplateError(f"answer_end {template.answer_end!r} gives no token")
        self.end_id = end[0]
        fixed = sum(len(ids) for _, ids in self._pieces)
        if fixed + 8 > max_length:
            raise TemplateError(
                f"max_length {max_length} is too small: template {template.name!r} alone takes {fixed} tokens"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes, which make it anew."""
        again = partial(
            PromptEncoder, max_length=self.max_length, query_max_length=self.query_max_length,
            document_max_length=self.document_max_length, long_documents=self.long_documents,
        )  # fmt: skip
        return again, (self.tokenizer, self.template)

    def encode(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str | None = None,
        *,
        keep_end: bool = False,
        max_chunks: int | None = None,
    ) -> Encoded:
        """Token ids of every (query, document) prompt, the common beginning kept apart.

        Args:
            keep_end: long documents lose their beginning instead of what ``long_documents`` says (``max_window``,
                which loses nothing, stays).
            max_chunks: with ``max_window``: so many windows a document at most, the first ones.

        Raises:
            ValueError: instruction and query leave no room for a document within ``max_length``.
            TypeError: a text is not a string.
        """
        prefix, instruction_length = self.encode_prefix(query, instruction)
        room = self._room(prefix)
        texts = [self._document_text(document) for document in documents]
        if self.long_documents == "max_window":
            rows, row_document, truncated = self._windows(texts, room, max_chunks)
            return Encoded(EncodedGroup(prefix, rows, instruction_length), row_document, truncated, len(documents))
        if keep_end:
            all_ids = self._encode_text(texts)
            head = self._encode_text([self._head])[0]
            kept = [ids if len(ids) <= room else _end(ids, head, room) for ids in all_ids]
        elif self.long_documents == "truncate":
            all_ids = self._encode_text.limited(texts, room + 1)
            kept = [ids[:room] for ids in all_ids]
        else:
            limit = max(READ_TOKENS, room + 1)
            all_ids = self._encode_text.limited(texts, limit)
            weights = self._query_weights(query)
            kept = [self._excerpt(ids[:limit], room, weights) for ids in all_ids]
        group = EncodedGroup(prefix, [ids + self.suffix_ids for ids in kept], instruction_length)
        return Encoded(group, tuple(range(len(documents))), sum(len(ids) > room for ids in all_ids), len(documents))

    def beginning(self, text: str, limit: int) -> str:
        """What of ``text`` its first ``limit`` tokens hold."""
        return self._encode_text.beginning(text, limit)

    def chunk(
        self, query: str, document: str, instruction: str | None = None, *, row: int = 0, keep_end: bool = False
    ) -> Chunk:
        """What of a document its prompt holds.

        With ``excerpt``, whose sentences may stand apart, the connected part that shares most with the query.

        Args:
            row: which of the document's windows (``max_window``).
            keep_end: as in :meth:`encode`.
        """
        room = self._room(self.encode_prefix(query, instruction)[0])
        text = self._document_text(document)
        if self.long_documents == "max_window":
            begin = row * _step(room)
            end = begin + room
        elif self.long_documents == "excerpt" and not keep_end:
            limit = max(READ_TOKENS, room + 1)
            ids = self._encode_text.limited([text], limit)[0][:limit]
            begin, end = self._excerpt.best_stretch(ids, room, self._query_weights(query))
        else:
            begin, end = 0, room
            if keep_end and (length := len(self._encode_text([text])[0])) > room:
                begin, end = length - (room - len(self._encode_text([self._head])[0])), length
        skipped = len(self._head) - (len(document) - len(document.lstrip()) if self.template.strip else 0)
        first = len(self.beginning(text, begin)) - skipped if begin else 0
        last = min(max(len(self.beginning(text, end)) - skipped, 0), len(document))
        first = min(max(first, 0), last)
        part = document[first:last]
        first += len(part) - len(part.lstrip())
        return Chunk(part.strip(), first, first + len(part.strip()))

    def _room(self, prefix: Sequence[int]) -> int:
        """Tokens that a document may take behind ``prefix``."""
        room = self.max_length - len(prefix) - len(self.suffix_ids)
        if room < 1:
            raise ValueError(
                f"instruction and query take {len(prefix)} tokens, which leaves no room for a document within "
                f"max_length {self.max_length}; shorten the instruction or raise max_length"
            )
        return min(room, self.document_max_length)

    @property
    def _head(self) -> str:
        """The template's words in the document's piece, before the document."""
        text = self._pieces[self._document_at][0].text
        return text[: text.index("{document}")]

    def _document_text(self, document: str) -> str:
        return self._pieces[self._document_at][0].text.replace("{document}", self._clean(document, "document"))

    def _query_weights(self, query: str) -> dict[object, float]:
        words = self._encode_text.limited([" " + self._clean(query, "query")], self.query_max_length)[0]
        return self._excerpt.query_weights(words[: self.query_max_length])

    def _windows(
        self, texts: list[str], room: int, max_chunks: int | None
    ) -> tuple[list[list[int]], tuple[int, ...], int]:
        """Rows of overlapping windows, the document of each, and how many documents had more than ``max_chunks``."""
        rows, row_document, cut = [], [], 0
        for index, ids in enumerate(self._encode_text(texts)):
            starts = range(0, max(len(ids) - room // 4, 1), _step(room))
            cut += max_chunks is not None and len(starts) > max_chunks
            for start in starts[:max_chunks]:
                rows.append(ids[start : start + room] + self.suffix_ids)
                row_document.append(index)
        return rows, tuple(row_document), cut

    def with_long_documents(self, long_documents: LongDocuments) -> PromptEncoder:
        """The same prompts, but for what becomes of long documents."""
        return PromptEncoder(
            self.tokenizer, self.template, max_length=self.max_length, query_max_length=self.query_max_length,
            document_max_length=self.document_max_length, long_documents=long_documents,
        )  # fmt: skip

    def encode_prefix(self, query: str, instruction: str | None = None) -> tuple[list[int], int]:
        """Ids of everything before the document, and how many of them do not depend on the query."""
        query = self._clean(query, "query")
        if instruction is None:
            instruction = self.template.default_instruction
        if instruction:
            instruction = self.template.instruction_format.replace(
                "{instruction}", self._clean(instruction, "instruction")
            )
        ids: list[int] = []
        instruction_length = 0
        seen_query = False
        for piece, static in self._pieces[: self._document_at]:
            ids += self._filled(piece, static, instruction=instruction or "", query=query)
            seen_query = seen_query or "{query}" in _fields(piece)
            if not seen_query:
                instruction_length = len(ids)
        return ids, instruction_length

    def _filled(self, piece: Piece, static: list[int], **values: str) -> list[int]:
        if piece.kind == "static":
            return static
        if "{query}" in piece.text and not piece.text.endswith("{query}"):
            # The query stands inside its piece: shorten the query, not the words behind it.
            ids = self._encode_text.limited([values["query"]], self.query_max_length + 1)[0]
            if len(ids) > self.query_max_length:
                values["query"] = self.tokenizer.decode(ids[: self.query_max_length])
        text = re.sub(r"\{(instruction|query)\}", lambda match: values[match.group(1)], piece.text)
        if not text:
            return []
        if piece.text.endswith("{query}"):
            return self._encode_text.limited([text], self.query_max_length + 1)[0][: self.query_max_length]
        return self._encode_text([text])[0]

    def _clean(self, text: object, field: str) -> str:
        if not isinstance(text, str):
            raise TypeError(f"{field} must be a string, got {type(text).__name__}")
        return text.strip() if self.template.strip else text

    def _single_id(self, word: str) -> int:
        ids = self._encode_text([word])[0]
        if len(ids) != 1:
            raise TemplateError(
                f"label word {word!r} is {len(ids)} tokens for this tokenizer; a label word must be exactly one token"
            )
        return ids[0]


def _fields(piece: Piece) -> str:
    return piece.text if piece.kind == "user" else ""


def _step(room: int) -> int:
    """From a window's beginning to the next one's: a quarter of a window is repeated."""
    return max(room - room // 4, 1)


def _end(ids: list[int], head: list[int], room: int) -> list[int]:
    """The last ids that fit behind ``head``, the template's words before the document."""
    head = head[: room - 1]
    return head + ids[len(ids) - (room - len(head)) :]


def _static_ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))
