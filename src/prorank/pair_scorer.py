"""(query, document) texts in, float32 margins out: the half of a reranker that scores and does not rank."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank.early_exit.readouts import Cascade
from prorank.early_exit.scoring import EarlyExit, score_cascade
from prorank.model.loading import combined_sha256, early_exits
from prorank.model.manifest import Manifest
from prorank.pair_cache import PairCache, through
from prorank.progress import progress_bar
from prorank.prompt.encoded import Encoded, best_margins
from prorank.prompt.encoder import PromptEncoder
from prorank.scoring import DEFAULT_BATCH_TOKENS, Backend, Margins, probability, score_groups
from prorank.types import EncodedGroup

__all__ = ["PairScorer"]


class PairScorer:
    """Scores pairs of texts with a backend and an encoder; see :class:`prorank.reranker.Reranker`.

    Args:
        backend: what computes label logits from token ids.
        encoder: what makes token ids from texts.
        calibration: (slope, intercept) of the probability; it never changes an order.
        pair_cache: margins of pairs that were scored before; the weights must be known by a hash.
    """

    def __init__(
        self,
        backend: Backend,
        encoder: PromptEncoder,
        *,
        name: str = "reranker",
        calibration: tuple[float, float] | None = None,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        manifest: Manifest | None = None,
        weights_sha256: str = "",
        cascade: Cascade | None = None,
        pair_cache: PairCache | None = None,
    ) -> None:
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        if pair_cache is not None and not weights_sha256:
            raise ValueError("pair_cache: the hash of the weights is not known, so that pairs could be another model's")
        self.backend = backend
        self.encoder = encoder
        self.name = name
        self.calibration = calibration or (1.0, encoder.template.probability_shift)
        self.batch_tokens = batch_tokens
        self.manifest = manifest
        self.weights_sha256 = weights_sha256
        self.cascade = cascade
        self.pair_cache = pair_cache
        self._early: EarlyExit | None = None
        self._lock = threading.Lock()

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        instruction: str | None = None,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> Margins:
        """Margins of (query, document) pairs, ``(n,)`` float32, in input order."""
        by_query: dict[str, list[int]] = {}
        for i, pair in enumerate(pairs):
            if isinstance(pair, str) or len(pair) != 2:
                got = "one string" if isinstance(pair, str) else f"{len(pair)} items"
                raise ValueError(f"pair {i} must be (query, document), got {got}")
            by_query.setdefault(pair[0], []).append(i)
        encoded = [self.encode(query, [pairs[i][1] for i in places], instruction) for query, places in by_query.items()]
        with progress_bar("scoring", len(pairs), shown=progress) as on_scored:
            scored = self.score_groups(encoded, batch_tokens=batch_tokens, on_scored=on_scored)
        margins = np.zeros(len(pairs), dtype=np.float32)
        for places, values in zip(by_query.values(), scored, strict=True):
            margins[places] = values
        return margins

    def margins(
        self,
        query: str,
        documents: Sequence[str],
        *,
        instruction: str | None = None,
        batch_tokens: int | None = None,
        on_scored: Callable[[int], None] | None = None,
        cascade: str = "exact",
        top_k: int | None = None,
    ) -> Margins:
        """Margins of one query's documents, ``(n,)`` float32, in input order.

        Args:
            cascade: as in :meth:`rank`; with ``fast`` or ``faster`` the margins outside the ``top_k`` may be estimates.
        """
        encoded = self.encode(query, documents, instruction)
        return self.margins_of(encoded, batch_tokens=batch_tokens, on_scored=on_scored, cascade=cascade, top_k=top_k)

    def margins_of(
        self,
        encoded: Encoded,
        *,
        batch_tokens: int | None = None,
        on_scored: Callable[[int], None] | None = None,
        cascade: str = "exact",
        top_k: int | None = None,
    ) -> Margins:
        """:meth:`margins` of a query that :meth:`encode` has read already."""
        if cascade != "exact":
            return self._cascade_margins(encoded, cascade, top_k, batch_tokens or self.batch_tokens, on_scored)
        return self.score_groups([encoded], batch_tokens=batch_tokens, on_scored=on_scored)[0]

    def margins_and_rows(self, encoded: Encoded, **options: Any) -> tuple[Margins, list[int]]:
        """:meth:`margins_of`, and per document which of its windows has that margin (0 where there is one)."""
        if len(encoded.row_document) == encoded.document_count:
            return self.margins_of(encoded, **options), [0] * encoded.document_count
        by_row = self.margins_of(encoded.by_rows(), **options)
        return best_margins(encoded, by_row), encoded.best_rows([float(margin) for margin in by_row])

    def _cascade_margins(
        self,
        encoded: Encoded,
        level: str,
        top_k: int | None,
        batch_tokens: int,
        on_scored: Callable[[int], None] | None,
    ) -> Margins:
        if self.cascade is None:
            raise ValueError(f"cascade {level!r}: {self.name} has no read-outs; fit them with: prorank cascade")
        if self.encoder.long_documents == "max_window":
            raise ValueError("cascade: not with long_documents 'max_window'")
        tolerances, wanted = self.cascade.tolerance(level), top_k or min(10, self.cascade.top_k)
        if wanted > self.cascade.top_k:
            raise ValueError(f"cascade: the read-outs were fitted for the top {self.cascade.top_k}, not {wanted}")
        with self._lock:
            if self._early is None:
                self._early = early_exits(self.backend, self.cascade)
            margins, _ = score_cascade(
                self._early, encoded.group, top_k=wanted, tolerances=tolerances, batch_tokens=batch_tokens,
                on_scored=on_scored,
            )  # fmt: skip
        return margins

    def encode(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str | None = None,
        *,
        keep_end: bool = False,
        max_chunks: int | None = None,
        max_tokens: int | None = None,
    ) -> Encoded:
        """Token ids of one query's prompts; thread-safe, and apart from scoring so that callers may overlap both.

        Args:
            keep_end: documents that are cut lose their beginning (see :meth:`PromptEncoder.encode`).
            max_chunks: windows of a document at most (``max_window``; the others have none).
            max_tokens: so much of each document is read at all.
        """
        texts = self.beginnings(documents, max_tokens)
        return self.encoder.encode(query, texts, instruction, keep_end=keep_end, max_chunks=max_chunks)

    def beginnings(self, documents: Sequence[str], max_tokens: int | None) -> Sequence[str]:
        """The documents, each cut behind its first ``max_tokens`` tokens."""
        encoder = self.encoder
        if max_tokens is None or (max_tokens >= encoder.max_length and encoder.long_documents == "truncate"):
            return documents
        return [encoder.beginning(text, max_tokens) for text in documents]

    def score_groups(
        self,
        encoded: Sequence[Encoded],
        *,
        batch_tokens: int | None = None,
        on_scored: Callable[[int], None] | None = None,
    ) -> list[Margins]:
        """Margins per document of several encoded queries, computed in common batches.

        A document of several windows gets its best one's margin. Calls from several threads take turns.
        """

        def compute(groups: list[EncodedGroup]) -> list[Margins]:
            with self._lock:
                return score_groups(
                    self.backend, groups, batch_tokens=batch_tokens or self.batch_tokens, on_scored=on_scored
                )

        groups = [one.group for one in encoded]
        if self.pair_cache is None:
            rows = compute(groups)
        else:
            rows = through(self.pair_cache, self.fingerprint, groups, compute, on_scored)
        return [best_margins(one, margins) for one, margins in zip(encoded, rows, strict=True)]

    def probability(self, margins: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrated probability of relevance, for people; order by margins."""
        return probability(margins, *self.calibration)

    @property
    def step_tokens(self) -> int:
        """Own tokens computed at the same time: a batch in each of the backend's passes."""
        return self.batch_tokens * self.backend.capabilities.passes

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights, template and limits: two rerankers with the same one give the same scores."""
        encoder = self.encoder
        limits = [encoder.max_length, encoder.query_max_length, encoder.long_documents, self.backend.name]
        return combined_sha256(self.weights_sha256, json.dumps([encoder.template.to_dict(), limits], sort_keys=True))

    def describe(self) -> dict[str, Any]:
        """Facts for records: model, backend, limits, hashes."""
        return {
            "model": self.name,
            "backend": self.backend.name,
            "stage": self.manifest.stage if self.manifest else "",
            "template": self.encoder.template.name,
            "max_length": self.encoder.max_length,
            "query_max_length": self.encoder.query_max_length,
            "long_documents": self.encoder.long_documents,
            "batch_tokens": self.batch_tokens,
            "weights_sha256": self.weights_sha256,
            "fingerprint": self.fingerprint,
            **({"pair_cache": True} if self.pair_cache is not None else {}),
        }
