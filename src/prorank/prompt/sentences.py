"""Texts cut into sentences: what an explanation of a score leaves out one by one.

It knows no model: who explains scores :func:`without` every sentence, and takes the difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from prorank.types import SentenceWeight

__all__ = ["MOST_SENTENCES", "sentence_weights", "sentences", "without"]

MOST_SENTENCES = 16
"""Of one document; those of a longer one are taken together."""
_END = re.compile(r"(?:[.!?][\"'”’)\]]*(?=\s)|[。！？][\"”’」』）]*|\n)\s*")


def sentences(text: str, at_most: int = MOST_SENTENCES) -> list[tuple[int, int]]:
    """(start, end) of each sentence, without white space around it; neighbours together where there are too many.

    What lies between two of them is white space, so that no word belongs to none.
    """
    bounds = [0, *(match.end() for match in _END.finditer(text)), len(text)]
    found = [(begin, end) for begin, end in pairwise(bounds) if text[begin:end].strip()]
    while len(found) > at_most:  # the shortest two neighbours become one
        place = min(range(len(found) - 1), key=lambda i: found[i + 1][1] - found[i][0])
        found[place : place + 2] = [(found[place][0], found[place + 1][1])]
    return [_stripped(text, begin, end) for begin, end in found]


def without(text: str, sentence: tuple[int, int]) -> str:
    """The text that is left when a sentence goes."""
    begin, end = sentence
    return f"{text[:begin]}{text[end:].lstrip()}".strip() if text[:begin].strip() else text[end:].strip()


def sentence_weights(
    text: str, places: Sequence[tuple[int, int]], margin: float, others: Iterable[float]
) -> tuple[SentenceWeight, ...]:
    """Every sentence with what the margin owes to it.

    Args:
        places: (start, end) of each.
        margin: of the whole text.
        others: margins of the text without each of them.
    """
    return tuple(
        SentenceWeight(text[begin:end], begin, end, margin - float(other))
        for (begin, end), other in zip(places, others, strict=True)
    )


def _stripped(text: str, begin: int, end: int) -> tuple[int, int]:
    part = text[begin:end]
    return begin + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))
