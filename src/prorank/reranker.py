"""The public face: ``Reranker.from_pretrained(...).rank(query, documents)``."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank.early_exit.readouts import Cascade
from prorank.early_exit.scoring import EarlyExit, score_cascade
from prorank.model.built_in import DEFAULT_BASE
from prorank.model.checkpoint import Manifest, built_in_rerankers, save_checkpoint
from prorank.model.loading import combined, early_exits, load_parts
from prorank.model.options import LoadOptions, keywords_of
from prorank.progress import progress_bar
from prorank.prompt.encoder import Encoded, PromptEncoder
from prorank.scoring import (
    DEFAULT_BATCH_TOKENS,
    Backend,
    Margins,
    passes_of,
    probability,
    rank_order,
    score_groups,
)
from prorank.types import DocumentLike, RankResult, as_documents

__all__ = ["DEFAULT_BASE", "DEFAULT_RERANKERS", "DocumentLike", "Reranker", "default_model"]

DEFAULT_RERANKERS = ("prorank-smollm2-135m", "prorank-smollm2-135m-warmup")
"""What :func:`default_model` takes, the best first: both stages, stage 1 alone."""


def default_model() -> str:
    """The reranker that comes with the package, or the bare base where none has been trained yet."""
    shipped = built_in_rerankers()
    return next((name for name in DEFAULT_RERANKERS if name in shipped), DEFAULT_BASE)


class Reranker:
    """Orders documents by how relevant a small language model finds them to a query.

    Make one with :meth:`from_pretrained`; the constructor joins parts that you already have.

    Args:
        backend: what computes label logits from token ids.
        encoder: what makes token ids from texts.
        calibration: (slope, intercept) of the probability; it never changes an order.
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
    ) -> None:
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.backend = backend
        self.encoder = encoder
        self.name = name
        self.calibration = calibration or (1.0, encoder.template.probability_shift)
        self.batch_tokens = batch_tokens
        self.manifest = manifest
        self.weights_sha256 = weights_sha256
        self.cascade = cascade
        self._early: EarlyExit | None = None
        self._lock = threading.Lock()

    @classmethod
    @keywords_of(LoadOptions)
    def from_pretrained(cls, options: LoadOptions) -> Reranker:
        """Load a reranker.

        Args:
            OPTIONS

        Raises:
            ValueError: anything that does not exist or does not fit; the message names it.
        """
        return cls.load(options)

    @classmethod
    def load(cls, options: LoadOptions) -> Reranker:
        """:meth:`from_pretrained` with its arguments in one object."""
        name = os.fspath(options.model) if options.model is not None else default_model()
        parts = load_parts(name, options)
        return cls(
            parts.backend,
            parts.encoder,
            name=Path(name).name or name,
            calibration=parts.manifest.calibration,
            batch_tokens=options.batch_tokens or parts.batch_tokens,
            manifest=parts.manifest,
            weights_sha256=parts.weights_sha256,
            cascade=parts.cascade,
        )

    def rank(
        self,
        query: str,
        documents: Sequence[DocumentLike],
        *,
        top_k: int | None = None,
        instruction: str | None = None,
        return_documents: bool = True,
        batch_tokens: int | None = None,
        progress: bool = False,
        cascade: str = "exact",
    ) -> list[RankResult]:
        """The documents from most to least relevant; equal margins keep their input order.

        Args:
            documents: texts, mappings or :class:`Document`, as a list, a column, or a whole pandas or polars frame
                or Arrow table with a column ``text`` (and ``title``, ``id``); all of them are scored.
            top_k: how many results to return; default: all.
            instruction: what relevance means here; default: the template's.
            return_documents: whether results carry the text.
            progress: show a progress bar on stderr.
            cascade: ``fast`` or ``faster``: documents that an early layer sees far from the ``top_k`` (default there:
                10) stop there; their margins are estimates below all others. ``exact``: all layers for all.

        Raises:
            ValueError: ``top_k`` below 1, a document without text, or ``cascade`` on a model without a read-out.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        parsed = as_documents(documents)
        with progress_bar("scoring", len(parsed), shown=progress) as on_scored:
            margins = self.margins(
                query,
                [document.content for document in parsed],
                instruction=instruction,
                batch_tokens=batch_tokens,
                on_scored=on_scored,
                cascade=cascade,
                top_k=top_k,
            )
        probabilities = self.probability(margins)
        return [
            RankResult(
                int(i),
                parsed[i].doc_id,
                float(margins[i]),
                float(probabilities[i]),
                parsed[i].content if return_documents else None,
            )
            for i in rank_order(margins)[:top_k]
        ]

    async def arank(self, query: str, documents: Sequence[DocumentLike], **options: Any) -> list[RankResult]:
        """:meth:`rank` in a thread: the event loop stays free."""
        return await asyncio.to_thread(self.rank, query, documents, **options)

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
        self, query: str, documents: Sequence[str], instruction: str | None = None, *, keep_end: bool = False
    ) -> Encoded:
        """Token ids of one query's prompts; thread-safe, and apart from scoring so that callers may overlap both.

        Args:
            keep_end: documents that are cut lose their beginning (see :meth:`PromptEncoder.encode`).
        """
        return self.encoder.encode(query, documents, instruction, keep_end=keep_end)

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
        with self._lock:
            rows = score_groups(
                self.backend,
                [one.group for one in encoded],
                batch_tokens=batch_tokens or self.batch_tokens,
                on_scored=on_scored,
            )
        results = []
        for one, margins in zip(encoded, rows, strict=True):
            best = np.full(one.document_count, -np.inf, dtype=np.float32)
            np.maximum.at(best, list(one.row_document), margins)
            results.append(best)
        return results

    def probability(self, margins: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrated probability of relevance, for people; order by margins."""
        return probability(margins, *self.calibration)

    @property
    def step_tokens(self) -> int:
        """Own tokens computed at the same time: a batch in each of the backend's passes."""
        return self.batch_tokens * passes_of(self.backend)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights, template and limits: two rerankers with the same one give the same scores."""
        encoder = self.encoder
        limits = [encoder.max_length, encoder.query_max_length, encoder.long_documents, self.backend.name]
        return combined(self.weights_sha256, json.dumps([encoder.template.to_dict(), limits], sort_keys=True))

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
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write a checkpoint that prorank, sentence-transformers' ``CrossEncoder`` and transformers load.

        Read-outs for early exits go along. ``CrossEncoder`` gives the same margins for texts that fit. It knows neither
        ``excerpt`` nor ``max_window`` (a warning says so), cuts long prompts at their end, and takes a special token in
        a text for one.

        Raises:
            ValueError: the backend holds no transformers model.
        """
        model = getattr(self.backend, "model", None)
        if model is None:
            raise ValueError(
                f"backend {self.backend.name} holds no transformers model to save; load with backend 'torch'"
            )
        if self.encoder.long_documents != "truncate":
            warnings.warn(
                f"CrossEncoder cuts long documents where long_documents={self.encoder.long_documents!r} reads more of "
                "them: their scores there differ from prorank's",
                stacklevel=2,
            )
        manifest, tokenizer = self.current_manifest(), self.encoder.tokenizer
        return save_checkpoint(Path(folder), model, tokenizer, manifest, cascade=self.cascade)

    def current_manifest(self) -> Manifest:
        """The checkpoint's manifest with the template and the limits in use.

        Raises:
            ValueError: the reranker was put together without one.
        """
        if self.manifest is None:
            raise ValueError(f"{self.name} has no manifest: it was not loaded from a checkpoint or a base")
        encoder = self.encoder
        return replace(
            self.manifest,
            template=encoder.template,
            label_ids=encoder.label_ids,
            max_length=encoder.max_length,
            query_max_length=encoder.query_max_length,
            long_documents=encoder.long_documents,
        )
