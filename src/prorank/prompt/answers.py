"""What counts as an answer: the primitives that `prorank analyze` measures with and warmup rewards.

An answer is one of the two label words, exactly, and then the end of the turn. ``label_words`` is always
``(irrelevant, relevant)``, so that the index of an answer is the binary relevance it claims. Pure functions on a
completion, either its text (special tokens removed) or its token ids; no model, no tokenizer.

The paper gives the two ideas (format success rate: the answer is exactly in the allowed set; accuracy on binary
relevance) and not the code; the strictness about white space and the end of the turn is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = [
    "accuracy_score",
    "accuracy_score_ids",
    "first_label",
    "format_score",
    "format_score_ids",
    "parse_answer",
    "parse_answer_ids",
]

T = TypeVar("T")


def parse_answer(completion: str, label_words: Sequence[str], ended: bool = True) -> int | None:
    """The relevance (0 or 1) a completion's text answers, or None where it is malformed.

    Args:
        completion: the generated text without special tokens. It must equal a label word, character for character:
            ``"1"`` is an answer, ``" 1"``, ``"1."`` and ``"1\\n"`` are not.
        label_words: ``(irrelevant, relevant)``.
        ended: whether the model closed its turn after the text; an unfinished completion is malformed.

    Raises:
        ValueError: ``label_words`` is not two different words.
    """
    irrelevant, relevant = _two(label_words, "label_words")
    if not ended:
        return None
    return {irrelevant: 0, relevant: 1}.get(completion)


def parse_answer_ids(completion_ids: Sequence[int], label_ids: Sequence[int], end_id: int) -> int | None:
    """As :func:`parse_answer`, of token ids: well-formed means exactly ``[label id, end_id]``.

    Ids after the first ``end_id`` (padding) are ignored. A completion that spells a label word with other tokens is
    malformed: the margin, the only number ranked by, reads the label ids alone.
    """
    irrelevant, relevant = _two(label_ids, "label_ids")
    if len(completion_ids) < 2 or int(completion_ids[1]) != end_id:
        return None
    return {int(irrelevant): 0, int(relevant): 1}.get(int(completion_ids[0]))


def first_label(completion_ids: Sequence[int], label_ids: Sequence[int]) -> int | None:
    """The relevance named by the first token, whatever follows; None where it is no label. For partial credit."""
    irrelevant, relevant = _two(label_ids, "label_ids")
    return {int(irrelevant): 0, int(relevant): 1}.get(int(completion_ids[0])) if len(completion_ids) else None


def format_score(completion: str, label_words: Sequence[str], ended: bool = True) -> float:
    """1.0 for a well-formed answer, 0.0 otherwise. Its mean over prompts is the format success rate (share, 0-1)."""
    return float(parse_answer(completion, label_words, ended) is not None)


def format_score_ids(completion_ids: Sequence[int], label_ids: Sequence[int], end_id: int) -> float:
    """As :func:`format_score`, of token ids."""
    return float(parse_answer_ids(completion_ids, label_ids, end_id) is not None)


def accuracy_score(completion: str, label_words: Sequence[str], relevant: bool, ended: bool = True) -> float:
    """1.0 where the answer is well-formed and names the judged relevance, 0.0 otherwise (malformed is wrong).

    Its mean over prompts is the accuracy (share, 0-1).
    """
    return float(parse_answer(completion, label_words, ended) == int(bool(relevant)))


def accuracy_score_ids(completion_ids: Sequence[int], label_ids: Sequence[int], end_id: int, relevant: bool) -> float:
    """As :func:`accuracy_score`, of token ids."""
    return float(parse_answer_ids(completion_ids, label_ids, end_id) == int(bool(relevant)))


def _two(values: Sequence[T], field: str) -> tuple[T, T]:
    if len(values) != 2 or values[0] == values[1]:
        raise ValueError(f"{field} must be two different values (irrelevant, relevant), got {list(values)!r}")
    return values[0], values[1]
