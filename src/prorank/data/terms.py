"""How BM25 reads a text: by words; where a script puts no spaces between them, by bigrams of its characters.

Words are what `bm25s` takes by itself, so that English scores are those of the published baselines. Bigrams are cut as
Lucene's CJK analyser cuts them, and a vowel sign or tone mark stays with its letter. Single characters (C, R, 糖) and
stop words are read only for queries that find nothing otherwise.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["BIGRAMS", "READING", "SINGLES", "WORDS", "Reading", "reading_of", "rest_of"]

READING = "words or bigrams, 1"
"""Names these rules; a kept run of other rules is not used."""

_LARGE = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48C), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # Han, Yi
_BLOCKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x3005, 0x3007),  # Han's repetition mark, closing mark and zero
    (0x3031, 0x3035),
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x3105, 0x312F),  # Bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0xA980, 0xA9DF),  # Javanese
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xFF66, 0xFF9F),  # half-width Katakana
)


def _class(kinds: str) -> str:
    """The characters of the small blocks whose category is of these kinds, for a class of a regular expression."""
    return "".join(
        chr(code)
        for first, last in _BLOCKS
        for code in range(first, last + 1)
        if unicodedata.category(chr(code))[0] in kinds or (code == 0x3007 and "L" in kinds)
    )


_LETTERS = _class("L") + "".join(f"{chr(first)}-{chr(last)}" for first, last in _LARGE)
_MARKS = _class("M")
_UNIT = f"[{_LETTERS}][{_MARKS}]*"
_units = re.compile(_UNIT).findall
_run = re.compile(f"(?:{_UNIT})+")
_spaceless = re.compile(f"[{_LETTERS}]").search
_lonely = re.compile(rf"(?<![\w{_MARKS}'’])(?:{_UNIT}|[^\W_])(?![\w{_MARKS}])").findall
_STOP_LETTER = "a"


def _same(text: str) -> str:
    return text


def _in_bigrams(text: str) -> str:
    def cut(run: re.Match[str]) -> str:
        units = _units(run[0])
        pairs = [first + second for first, second in itertools.pairwise(units)] or units
        return f" {' '.join(pairs)} "

    return _run.sub(cut, unicodedata.normalize("NFKC", text))


def _in_singles(text: str) -> str:
    return _run.sub(lambda run: f" {' '.join(_units(run[0]))} ", unicodedata.normalize("NFKC", text))


class Reading(NamedTuple):
    """One way of reading: what the tokeniser is given."""

    prepare: Callable[[str], str]
    """text -> text in which the pattern finds the terms."""
    pattern: str
    stop_words: bool
    """Whether the commonest English words are left out."""


_WORD = r"\b\w\w+\b"
WORDS = Reading(_same, f"(?u){_WORD}", stop_words=True)
BIGRAMS = Reading(_in_bigrams, rf"(?u)[{_LETTERS}{_MARKS}]+|{_WORD}", stop_words=True)
SINGLES = Reading(_in_singles, rf"(?u)[{_LETTERS}{_MARKS}]+|\w+", stop_words=False)


def reading_of(query: str) -> Reading:
    """:data:`BIGRAMS` for a query with text of a script without spaces, else :data:`WORDS`."""
    return BIGRAMS if _spaceless(query) else WORDS


def rest_of(query: str, *, has_terms: bool) -> str:
    """What of a query that found nothing is worth another look: its single characters, else its stop words.

    Args:
        has_terms: whether it holds words or bigrams; then its stop words are not what it asks for.
    """
    lonely = [letter for letter in _lonely(_in_bigrams(query)) if letter.lower() != _STOP_LETTER]
    return " ".join(lonely) if lonely or has_terms else query
