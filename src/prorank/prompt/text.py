"""Text from outside as token ids, such that no special token of the model can come out."""

from __future__ import annotations

import re
import threading
from array import array
from bisect import bisect_right
from itertools import pairwise
from typing import Any

from cachetools import LRUCache

__all__ = ["TextEncoder"]

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CHARS_PER_TOKEN = 24  # more than any common token has: text cut here still fills the limit, nearly always
_REMEMBERED_BYTES = 32 << 20  # of texts and their ids, about


class TextEncoder:
    """texts -> token ids; threads may share it. Texts seen lately are not tokenised again.

    Args:
        tokenizer: a transformers tokenizer, or :class:`prorank.prompt.tokenizer.FastTokenizer`.
        static: the template's own words: an added token that stands in them counts as special too.
    """

    def __init__(self, tokenizer: Any, static: str) -> None:
        added = {i: token for i, token in tokenizer.added_tokens_decoder.items() if token.content}
        guarded = {token.content: i for i, token in added.items() if token.special or token.content in static}
        for name in tokenizer.all_special_tokens:
            guarded.setdefault(name, tokenizer.convert_tokens_to_ids(name))
        self._tokenizer = tokenizer
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        self._forbidden = frozenset(guarded.values())
        words = sorted(guarded, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(word) for word in words) or r"(?!)")
        # A token's id takes 4 bytes, its text about as much.
        self._remembered: LRUCache[str, array[int]] = LRUCache(
            _REMEMBERED_BYTES, getsizeof=lambda ids: 256 + 8 * len(ids)
        )
        self._lock = threading.Lock()

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """Ids of every text, read to its end."""
        with self._lock:
            known = {text: ids for text in texts if (ids := self._remembered.get(text)) is not None}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known |= {text: array("I", ids) for text, ids in zip(new, self._ids(new), strict=True)}
        with self._lock:
            for text in new:
                if self._remembered.getsizeof(known[text]) <= self._remembered.maxsize:
                    self._remembered[text] = known[text]
        return [known[text].tolist() for text in texts]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        clean = [_SURROGATE.sub("\ufffd", text) for text in texts]
        encoded = self._plain(clean) if clean else []
        for i, ids in enumerate(encoded):
            if not self._forbidden.isdisjoint(ids):
                encoded[i] = self._guarded(clean[i])
        return encoded

    def limited(self, texts: list[str], limit: int) -> list[list[int]]:
        """Ids of every text, but of a very long one only of as many characters as surely fill ``limit`` tokens."""
        chars = _CHARS_PER_TOKEN * limit + 256
        encoded = self([text[:chars] for text in texts])
        for i, text in enumerate(texts):
            if len(text) > chars and len(encoded[i]) <= limit:  # a text of very long tokens: read it all
                encoded[i] = self([text])[0]
        return encoded

    def beginning(self, text: str, limit: int) -> str:
        """What of ``text`` its first ``limit`` tokens (1 or more) hold; a character that they cut goes as a whole."""
        if len(text.encode("utf-8", "replace")) <= limit:  # a token has at least one byte
            return text
        clean = _SURROGATE.sub("\ufffd", text)
        if self._fast is not None:
            encoding = self._fast.encode(clean, add_special_tokens=False)
            if self._forbidden.isdisjoint(encoding.ids):
                offsets = encoding.offsets
                return text if len(offsets) <= limit else text[: min(offsets[limit - 1][1], offsets[limit][0])]
        ids = self._ids([clean])[0]
        if len(ids) <= limit:
            return text
        kept = self._tokenizer.decode(ids[:limit]).rstrip("\ufffd")
        if clean.startswith(kept):
            return text[: len(kept)]
        # What it decodes is not what it read (lower case, say): a beginning of so many tokens, or one fewer.
        return text[: bisect_right(range(1, len(text)), limit, key=lambda end: len(self._ids([clean[:end]])[0]))]

    def _plain(self, texts: list[str]) -> list[list[int]]:
        if self._fast is not None:  # the Rust tokenizer itself: no shared truncation state, so threads may share it
            return [encoding.ids for encoding in self._fast.encode_batch_fast(texts, add_special_tokens=False)]
        return [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def _guarded(self, text: str) -> list[int]:
        # Cut every special token's text behind its first character: the halves cannot match it any more.
        cuts = [0, *(match.start() + 1 for match in self._pattern.finditer(text)), len(text)]
        parts = [text[a:b] for a, b in pairwise(cuts) if a < b]
        ids = [i for part in self._plain(parts) for i in part]
        if not self._forbidden.isdisjoint(ids):  # a normaliser made one: letter by letter, and drop what is left
            ids = [i for letters in self._plain(list(text)) for i in letters if i not in self._forbidden]
        return ids
