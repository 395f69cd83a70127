"""A reranker without a model or a tokenizer for server tests: the contract of ``Reranker``, words for tokens.

Scores come through the real scoring path over :class:`FakeBackend`: they depend on the ids alone, so any mix-up of
documents, queries or instructions shows.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prorank.backends.fake import FakeBackend
from prorank.prompt.encoded import Encoded
from prorank.scoring import probability, rank_order, score_groups
from prorank.types import Chunk, EncodedGroup


class Template(NamedTuple):
    default_instruction: str = "A relevant passage helps."


class WordEncoder:
    """One id a word; documents are cut at ``max_length``."""

    max_length = 64
    template = Template()

    def beginning(self, text: str, limit: int) -> str:
        return " ".join(text.split()[:limit])

    def chunk(self, _query: str, text: str, _instruction: str | None = None, **_: object) -> Chunk:
        return Chunk(text[:9], 0, len(text[:9]))


def ids(text: str) -> list[int]:
    return [zlib.crc32(word.encode("utf-8", "replace")) % 50_000 for word in text.split()]


class StandIn:
    """Like a ``Reranker``. ``hold`` (cleared) makes scoring wait; ``seconds_per_token`` makes it slow."""

    def __init__(
        self, name: str = "fake", seconds_per_token: float = 0.0, fail: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self.backend = FakeBackend()
        self.encoder = WordEncoder()
        self.seconds_per_token = seconds_per_token
        self.fail = fail
        self.hold = threading.Event()
        self.hold.set()
        self.calls: list[list[int]] = []
        """Per call of score_groups the number of documents of each slice."""
        self.queries: list[list[tuple[int, ...]]] = []
        """Per call the prefixes of its slices."""

    def beginnings(self, documents: Sequence[str], max_tokens: int | None) -> Sequence[str]:
        return documents if max_tokens is None else [self.encoder.beginning(text, max_tokens) for text in documents]

    def encode(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str | None = None,
        *,
        keep_end: bool = False,
        max_chunks: int | None = None,  # noqa: ARG002  (no windows here)
        max_tokens: int | None = None,
    ) -> Encoded:
        documents = self.beginnings(documents, max_tokens)
        head = ids(instruction or self.encoder.template.default_instruction)
        prefix = [*head, 1, *ids(query)[:16], 2]
        room = self.encoder.max_length - len(prefix)
        own, truncated = [], 0
        for text in documents:
            words = ids(text)
            truncated += len(words) > room
            own.append([*(words[-room:] if keep_end else words[:room]), 3])
        return Encoded(EncodedGroup(prefix, own, len(head)), tuple(range(len(own))), truncated, len(own))

    def score_groups(self, encoded: Sequence[Encoded], *, batch_tokens: int | None = None) -> list[np.ndarray]:
        self.calls.append([one.document_count for one in encoded])
        self.queries.append([tuple(one.group.prefix_ids) for one in encoded])
        assert self.hold.wait(30)
        if self.fail is not None:
            self.fail()
        if self.seconds_per_token:
            time.sleep(self.seconds_per_token * sum(len(own) for one in encoded for own in one.group.own_ids))
        return score_groups(self.backend, [one.group for one in encoded], batch_tokens=batch_tokens or 4096)

    def margins(
        self, query: str, documents: Sequence[str], instruction: str | None = None, *, keep_end: bool = False
    ) -> np.ndarray:
        """What the library would answer for these documents alone."""
        group = self.encode(query, documents, instruction, keep_end=keep_end).group
        return score_groups(FakeBackend(), [group])[0]

    def order(self, query: str, documents: Sequence[str], instruction: str | None = None) -> list[int]:
        return [int(i) for i in rank_order(self.margins(query, documents, instruction))]

    def probability(self, margins: Any) -> np.ndarray:
        return probability(margins)

    def describe(self) -> dict[str, Any]:
        return {"model": self.name, "backend": "fake", "max_length": self.encoder.max_length}


class Other(StandIn):
    """A second model: it ranks the other way round."""

    def score_groups(self, encoded: Any, *, batch_tokens: int | None = None) -> Any:
        return [-margins for margins in super().score_groups(encoded, batch_tokens=batch_tokens)]
