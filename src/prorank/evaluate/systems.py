"""What an evaluation compares: anything that scores a query's candidates. The local ones are here.

Hosted services are in :mod:`prorank.evaluate.services`, language models behind an endpoint in
:mod:`prorank.evaluate.llm`; :func:`prorank.evaluate.baselines.load_system` makes any of them from its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from prorank._optional import require

if TYPE_CHECKING:
    from prorank.data.collection import Collection
    from prorank.reranker import Reranker

__all__ = ["BiEncoderSystem", "CrossEncoderSystem", "RerankerSystem", "Scored", "SparseEncoderSystem", "System"]


class Scored(NamedTuple):
    """What a system says of one query's candidates."""

    margins: npt.NDArray[np.float32]
    """``(n,)``, higher is more relevant, in the candidates' order."""
    tokens: int
    """Tokens read for it, the shared prefix once; 0 where the system does not tell."""


class System(Protocol):
    """Scores one query's candidates at a time."""

    name: str
    """Short, unique in a report, without path or secret."""

    def describe(self) -> Mapping[str, Any]:
        """What it is, as JSON data: all that its scores depend on, and no secret. It identifies the journal."""
        ...

    def score(self, query: str, documents: Sequence[str]) -> Scored:
        """Scores of ``documents`` (title and text), in their order."""
        ...


class RerankerSystem:
    """A prorank reranker: trained, or a zero-shot base.

    Args:
        cascade: ``fast`` or ``faster``: documents far from the top 10 stop at an early layer.
    """

    def __init__(
        self, reranker: Reranker, *, name: str | None = None, instruction: str | None = None, cascade: str = "exact"
    ) -> None:
        self.reranker = reranker
        self.instruction = instruction
        self.cascade = cascade
        self.name = name or (reranker.name if cascade == "exact" else f"{reranker.name}-{cascade}")

    def describe(self) -> Mapping[str, Any]:
        found = {**self.reranker.describe(), "instruction": self.instruction}
        if self.cascade != "exact" and self.reranker.cascade is not None:
            found |= {"cascade": self.cascade, "cascade_sha256": self.reranker.cascade.sha256}
        return found

    def score(self, query: str, documents: Sequence[str]) -> Scored:
        encoded = self.reranker.encode(query, documents, instruction=self.instruction)
        margins = self.reranker.margins_of(encoded, cascade=self.cascade)
        tokens = len(encoded.group.prefix_ids) + sum(map(len, encoded.group.own_ids))
        return Scored(np.asarray(margins, dtype=np.float32), tokens)


class CrossEncoderSystem:
    """Any sentence-transformers cross-encoder, by folder or hub id, with its own settings.

    Args:
        max_length: tokens of a pair; the model's own limit by default.
    """

    def __init__(self, model: str, *, max_length: int | None = None, batch_size: int = 16) -> None:
        sentence_transformers = require("sentence_transformers", extra="evaluate")
        options = {} if max_length is None else {"max_length": max_length}
        self.model: Any = sentence_transformers.CrossEncoder(model, trust_remote_code=False, **options)
        self.name = _short(model)
        self.batch_size = batch_size
        self._description = {"kind": "cross-encoder", "model": self.name, "max_length": max_length}

    def describe(self) -> Mapping[str, Any]:
        return self._description

    def score(self, query: str, documents: Sequence[str]) -> Scored:
        if not documents:
            return Scored(np.zeros(0, dtype=np.float32), 0)
        scores = self.model.predict(
            [(query, document) for document in documents], batch_size=self.batch_size, show_progress_bar=False
        )
        scores = np.asarray(scores, dtype=np.float32)
        if scores.shape != (len(documents),):
            raise ValueError(f"cross-encoder {self.name}: expected one score a pair, got shape {scores.shape}")
        return Scored(scores, 0)


class BiEncoderSystem:
    """A dense bi-encoder reranking the candidates by cosine similarity.

    Embeddings of documents seen before are kept in memory, as an index would keep them: its latency is a query's
    encoding plus that of the documents new to it. Texts are encoded one by one: in a batch the last digits would depend
    on what else was new, and a resumed run would differ from an uninterrupted one.
    """

    def __init__(self, model: str | None = None) -> None:
        from prorank.data.dense import bi_encoder

        self.encoder = bi_encoder(model)
        self.name = self.encoder.name
        self._seen: dict[str, npt.NDArray[np.float32]] = {}

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "bi-encoder", "model": self.name, "identity": self.encoder.identity}

    def preload(self, collection: Collection) -> None:
        """Take all documents' embeddings from the cache, computed there in batches where it does not hold them yet.

        Faster where most documents are somebody's candidates; the last digits are those of batches then.
        """
        vectors = self.encoder.documents(collection)
        self._seen.update(zip((d.content for d in collection.documents.values()), vectors, strict=True))

    def score(self, query: str, documents: Sequence[str]) -> Scored:
        if not documents:
            return Scored(np.zeros(0, dtype=np.float32), 0)
        new = [text for text in dict.fromkeys(documents) if text not in self._seen]
        self._seen.update(zip(new, self.encoder.encode(new, batch_size=1), strict=True))
        vectors = np.stack([self._seen[text] for text in documents])
        # Not as a matrix product: BLAS adds in another order for another number of rows.
        products = vectors * self.encoder.encode([query], query=True)[0]
        return Scored(products.sum(axis=1, dtype=np.float32), 0)


class SparseEncoderSystem:
    """A SPLADE encoder reranking the candidates by the dot product; documents seen before are kept in memory.

    Texts are encoded one by one, for the reason that :class:`BiEncoderSystem` gives.
    """

    def __init__(self, model: str | None = None) -> None:
        from prorank.data.sparse import sparse_encoder

        self.encoder = sparse_encoder(model)
        self.name = self.encoder.name
        self._seen: dict[str, Any] = {}

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "sparse-encoder", "model": self.name, "identity": self.encoder.identity}

    def preload(self, collection: Collection) -> None:
        """Take all documents' word weights from the cache, computed there in batches where it lacks them."""
        matrix = self.encoder.documents(collection)
        self._seen.update((d.content, matrix[[i]]) for i, d in enumerate(collection.documents.values()))

    def score(self, query: str, documents: Sequence[str]) -> Scored:
        if not documents:
            return Scored(np.zeros(0, dtype=np.float32), 0)
        new = [text for text in dict.fromkeys(documents) if text not in self._seen]
        matrix = self.encoder.encode(new, batch_size=1)
        self._seen.update((text, matrix[[i]]) for i, text in enumerate(new))
        weights = self.encoder.encode([query], batch_size=1).T
        scores = [float((self._seen[text] @ weights).toarray()[0, 0]) for text in documents]
        return Scored(np.asarray(scores, dtype=np.float32), 0)


def _short(model: str) -> str:
    return Path(model).resolve().name if Path(model).exists() else model
