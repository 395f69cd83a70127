"""A relevance prompt as data: pieces of text, some of them with fields. The words are in ``presets``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

__all__ = ["Piece", "PromptTemplate", "TemplateError"]


class TemplateError(ValueError):
    """A template that cannot be used with a tokenizer: label words, missing fields, no room for the document."""


class Piece(NamedTuple):
    """One stretch of the prompt, tokenised by itself."""

    kind: Literal["static", "user"]
    """``static``: our own text, special tokens are honoured. ``user``: holds fields, special tokens stay text."""
    text: str
    """For ``user``: a pattern with any of the fields ``{instruction}``, ``{query}``, ``{document}``."""


@dataclass(frozen=True)
class PromptTemplate:
    """A relevance prompt, frozen as data and saved with a checkpoint.

    The order is instruction, query, document, suffix. Fields are filled once; text that looks like a field stays text.
    """

    name: str
    """A preset's name, or ``prorank`` for ours, derived from a base's chat template."""
    pieces: tuple[Piece, ...]
    """In order; exactly one ``user`` piece holds ``{document}``, and none before it comes after."""
    label_words: tuple[str, str]
    """(irrelevant, relevant); each must be exactly one token."""
    answer_end: str
    """What a well-formed answer is followed by: the end-of-turn token's text."""
    default_instruction: str | None = None
    """Used where the caller gives none."""
    instruction_format: str = "{instruction}"
    """How a given instruction appears in its piece; nothing appears without one."""
    query_share: float = 0.25
    """The query's limit, as a share of ``max_length``, where no ``query_max_length`` is given."""
    strip: bool = False
    """Whether white space around instruction, query and document is dropped."""
    probability_shift: float = 0.0
    """Added to the margin before the sigmoid where no calibration is known (mxbai: -estimated_max / 2)."""

    def __post_init__(self) -> None:
        holding = [i for i, piece in enumerate(self.pieces) if piece.kind == "user" and "{document}" in piece.text]
        queries = [i for i, piece in enumerate(self.pieces) if piece.kind == "user" and "{query}" in piece.text]
        if len(holding) != 1 or len(queries) != 1 or queries[0] >= holding[0]:
            raise TemplateError(
                f"template {self.name!r}: pieces must hold {{query}} once and {{document}} once, the query first and "
                "in a piece of its own"
            )
        if "{instruction}" in self.pieces[holding[0]].text:
            raise TemplateError(f"template {self.name!r}: {{instruction}} must come before the document's piece")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; :meth:`from_dict` reads it back."""
        data = asdict(self)
        data["pieces"] = [{piece.kind: piece.text} for piece in self.pieces]
        data["label_words"] = list(self.label_words)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PromptTemplate:
        """Read a template from :meth:`to_dict`'s form.

        Raises:
            TemplateError: a field is missing, unknown or of the wrong kind; the message names it.
        """
        fields = dict(data)
        try:
            pieces = tuple(Piece(kind, text) for piece in fields.pop("pieces") for kind, text in piece.items())
            irrelevant, relevant = fields.pop("label_words")
            template = cls(pieces=pieces, label_words=(str(irrelevant), str(relevant)), **fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TemplateError(f"template data: {type(error).__name__}: {error}") from error
        if any(kind not in ("static", "user") for kind, _ in pieces):
            raise TemplateError("template data: a piece must be {'static': text} or {'user': pattern}")
        return template
