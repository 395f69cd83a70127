"""Excerpts: what of a long document a prompt holds. Its beginning, and the sentences that share the query's tokens.

A choice of passages before the model sees the document, as in KeyBLD (Li and Gaussier, SIGIR 2021), on token ids
alone: it depends on the query and the document, not on other documents, so that a score stays a matter of the pair.
A query's token weighs log(id / 256): byte-pair vocabularies list tokens by falling frequency, and by Zipf's law a
token of rank r has a frequency near 1 / r, so this stands for the inverse document frequency without a collection.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["READ_TOKENS", "Excerpter"]

READ_TOKENS = 4096
"""So many tokens of a document are looked at (more only where a prompt holds more); the rest is not."""
_HEAD_SHARE = 1 / 3  # of the room, for the beginning: title and subject
_SHORTEST, _LONGEST = 6, 40  # tokens of a sentence; a longer one is cut, so that it can be chosen in part
_STEM = 5  # letters that tokens of one word are compared by: "vaccine", "vaccines", "vaccinated"
_LEAST_WEIGHT = 0.5  # below it a token says nothing: "the", "of", "is"
_SENTENCE_END = re.compile(r"[.!?。！？\n][\"'”’)\]]*\s*$")


class _Token(NamedTuple):
    key: object
    """What tokens are compared by; None for punctuation and white space."""
    weight: float
    ends_sentence: bool


class _Sentence(NamedTuple):
    begin: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.begin


class Excerpter:
    """(query, document) -> the document's excerpt, as ids; threads may share it.

    Args:
        tokenizer: a transformers tokenizer, or :class:`prorank.prompt.tokenizer.FastTokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._seen: dict[int, _Token] = {}

    def query_weights(self, ids: Sequence[int]) -> dict[object, float]:
        """What the query's tokens weigh, by key."""
        weights: dict[object, float] = {}
        for token in map(self._token, ids):
            if token.key is not None and token.weight >= _LEAST_WEIGHT:
                weights[token.key] = max(token.weight, weights.get(token.key, 0.0))
        return weights

    def __call__(self, ids: list[int], room: int, weights: dict[object, float]) -> list[int]:
        """At most ``room`` of a document's ids: sentences in their order, one of them cut to fill the room.

        The beginning takes a third of the room, but at least a sentence. Then comes the sentence with the most weight
        of query tokens not yet covered, again and again (all count anew once nothing more is gained); what is left
        goes to the earliest others. A document without the query's words therefore gives its beginning.

        Args:
            ids: the document, special tokens excluded.
            room: tokens that the excerpt may take.
            weights: of :meth:`query_weights`.
        """
        return ids if len(ids) <= room else [i for a, b in self.stretches(ids, room, weights) for i in ids[a:b]]

    def best_stretch(self, ids: list[int], room: int, weights: dict[object, float]) -> tuple[int, int]:
        """(begin, end) of the excerpt's connected part with the most weight of query tokens, the first of equals."""
        if len(ids) <= room:
            return 0, len(ids)
        joined: list[tuple[int, int]] = []
        for begin, end in self.stretches(ids, room, weights):
            if joined and joined[-1][1] == begin:
                begin = joined.pop()[0]
            joined.append((begin, end))

        def weight(part: tuple[int, int]) -> float:
            held = {self._token(i).key for i in ids[slice(*part)]} & weights.keys()
            return math.fsum(weights[key] for key in held)

        return max(joined, key=weight)

    def stretches(self, ids: list[int], room: int, weights: dict[object, float]) -> list[tuple[int, int]]:
        """(begin, end) of the sentences that an excerpt of more than ``room`` ids consists of, in their order."""
        tokens = [self._token(i) for i in ids]
        sentences = _sentences(tokens)
        held = [{t.key for t in tokens[s.begin : s.end]} & weights.keys() for s in sentences]
        choice = _Choice(sentences, room)
        choice.add(0)
        for n in range(1, len(sentences)):
            if choice.used + sentences[n].length > room * _HEAD_SHARE:
                break
            choice.add(n)
        covered: set[object] = set().union(*(held[n] for n in choice.ends))
        for _ in range(2):
            choice.cover(held, weights, covered)
            covered = set()
        for n in range(len(sentences)):
            choice.add(n)
        return [(sentences[n].begin, choice.ends[n]) for n in sorted(choice.ends)]

    def _token(self, token_id: int) -> _Token:
        known = self._seen.get(token_id)
        if known is None:
            known = self._seen[token_id] = self._described(token_id)
        return known

    def _described(self, token_id: int) -> _Token:
        text = self._tokenizer.decode([token_id])
        word = text.strip().lower()
        key: object = word[:_STEM]
        if "\ufffd" in word:  # a part of a letter
            key = token_id
        elif not any(letter.isalnum() for letter in word):
            key = None
        return _Token(key, max(0.0, math.log((token_id + 1) / 256)), bool(_SENTENCE_END.search(text)))


def _sentences(tokens: Sequence[_Token]) -> list[_Sentence]:
    """Stretches that cover all tokens."""
    found, begin = [], 0
    for end, token in enumerate(tokens, 1):
        if (token.ends_sentence and end - begin >= _SHORTEST) or end - begin >= _LONGEST:
            found.append(_Sentence(begin, end))
            begin = end
    return found if begin == len(tokens) else [*found, _Sentence(begin, len(tokens))]


class _Choice:
    """The sentences taken so far, each with the place where it ends: the one that fills the room is cut."""

    def __init__(self, sentences: Sequence[_Sentence], room: int) -> None:
        self._sentences, self._room = sentences, room
        self.ends: dict[int, int] = {}
        self.used = 0

    def add(self, n: int) -> None:
        """Take a sentence, or as much of it as there is room for."""
        length = min(self._sentences[n].length, self._room - self.used)
        if n not in self.ends and length > 0:
            self.ends[n] = self._sentences[n].begin + length
            self.used += length

    def cover(self, held: Sequence[set[object]], weights: dict[object, float], covered: set[object]) -> None:
        """Add the best sentence while it covers more of the weights; one that fits only in part counts in part."""
        while self.used < self._room:
            gains = {
                n: math.fsum(weights[key] for key in keys - covered)
                * min(1.0, (self._room - self.used) / self._sentences[n].length)
                for n, keys in enumerate(held)
                if n not in self.ends
            }
            best = max(gains, key=lambda n: (gains[n], -n), default=None)
            if best is None or gains[best] <= 0:
                return
            self.add(best)
            covered |= held[best]
