"""The public face: ``Reranker.from_pretrained(...).rank(query, documents)``."""

from __future__ import annotations

import asyncio
import os
import tempfile
import warnings
from collections.abc import Iterable, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

from prorank.model.built_in import DEFAULT_BASE
from prorank.model.card import CardFacts
from prorank.model.checkpoint import built_in_rerankers, save_checkpoint
from prorank.model.hub import check_repository, push_folder
from prorank.model.loading import load_parts
from prorank.model.manifest import Manifest
from prorank.model.options import LoadOptions, keywords_of
from prorank.model.pooled import load_pooled
from prorank.pair_cache import open_pair_cache
from prorank.pair_scorer import PairScorer
from prorank.progress import progress_bar
from prorank.prompt.sentences import sentence_weights, sentences, without
from prorank.ranking import Collected, Ranking, Thresholds, best_places, check_count, document_blocks
from prorank.types import DocumentLike, RankResult, SentenceWeight

__all__ = ["DEFAULT_BASE", "DEFAULT_RERANKERS", "DocumentLike", "Reranker", "default_model"]

DEFAULT_RERANKERS = ("prorank-smollm2-135m", "prorank-smollm2-135m-warmup")
"""What :func:`default_model` takes, the best first: both stages, stage 1 alone."""
_BLOCK = 1024  # documents of an iterator at a time


def default_model() -> str:
    """The reranker that comes with the package, or the bare base where none has been trained yet."""
    shipped = built_in_rerankers()
    return next((name for name in DEFAULT_RERANKERS if name in shipped), DEFAULT_BASE)


class Reranker(PairScorer):
    """Orders documents by how relevant a small language model finds them to a query.

    Make one with :meth:`from_pretrained`; the constructor joins parts that you already have.

    Args:
        backend: what computes label logits from token ids.
        encoder: what makes token ids from texts.
        calibration: (slope, intercept) of the probability; it never changes an order.
    """

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
        pair_cache = None if options.pair_cache is None else open_pair_cache(os.fspath(options.pair_cache))
        several = options.processes is not None or options.devices is not None
        parts = (load_pooled if several else load_parts)(name, options)
        return cls(
            parts.backend,
            parts.encoder,
            name=Path(name).name or name,
            calibration=parts.manifest.calibration,
            batch_tokens=options.batch_tokens or parts.backend.capabilities.batch_tokens,
            manifest=parts.manifest,
            weights_sha256=parts.weights_sha256,
            cascade=parts.cascade,
            pair_cache=pair_cache,
        )

    def rank(
        self,
        query: str,
        documents: Iterable[DocumentLike],
        *,
        top_k: int | None = None,
        instruction: str | None = None,
        return_documents: bool = True,
        batch_tokens: int | None = None,
        progress: bool = False,
        cascade: str = "exact",
        min_score: float | None = None,
        min_margin: float | None = None,
        return_chunks: bool = False,
        max_chunks_per_doc: int | None = None,
        max_tokens_per_doc: int | None = None,
        explain: int | None = None,
    ) -> Ranking:
        """The documents from most to least relevant; equal margins keep their input order.

        Args:
            documents: texts, mappings or :class:`Document`, as a list, a column, or a whole pandas or polars frame
                or Arrow table with a column ``text`` (and ``title``, ``id``); all of them are scored. Of an iterator
                with ``top_k`` only a block and the best are in memory at a time.
            top_k: how many results to return; default: all.
            instruction: what relevance means here; default: the template's.
            return_documents: whether results carry the text.
            progress: show a progress bar on stderr.
            cascade: ``fast`` or ``faster``: documents that an early layer sees far from the ``top_k`` (default there:
                10) stop there; their margins are estimates below all others. ``exact``: all layers for all.
            min_score: leave out documents whose probability is below this; ``left_out`` of the result counts them.
            min_margin: the same by margin.
            return_chunks: whether results carry the part of the text that the margin is about: of ``max_window`` the
                best window, of an excerpt the connected part closest to the query, else the beginning that was read.
            max_chunks_per_doc: windows of a document at most, the first ones; needs ``long_documents="max_window"``.
            max_tokens_per_doc: what lies behind is not read, whatever ``long_documents`` says.
            explain: so many of the best results carry their ``sentences``, each with its weight: by how much the margin
                is higher than without it. Each costs up to 16 further scores; sentences of a longer text are taken
                together.

        Raises:
            ValueError: a count below 1, a threshold that is none, a document without text, ``max_chunks_per_doc``
                without windows, or ``cascade`` on a model without a read-out.
        """
        for name, count in (
            ("top_k", top_k), ("max_chunks_per_doc", max_chunks_per_doc), ("max_tokens_per_doc", max_tokens_per_doc),
            ("explain", explain),
        ):  # fmt: skip
            check_count(name, count)
        if max_chunks_per_doc is not None and self.encoder.long_documents != "max_window":
            raise ValueError(
                f"max_chunks_per_doc needs long_documents 'max_window'; {self.name} has {self.encoder.long_documents!r}"
            )
        thresholds = Thresholds.checked(min_score, min_margin)
        options = {"batch_tokens": batch_tokens, "cascade": cascade, "top_k": top_k}
        collected = Collected(top_k)
        read: dict[int, str] = {}
        total = len(documents) if isinstance(documents, Sized) else None
        with progress_bar("scoring", total, shown=progress) as on_scored:
            for offset, block in document_blocks(documents, top_k, _BLOCK):
                texts = self.beginnings([document.content for document in block], max_tokens_per_doc)
                encoded = self.encode(query, texts, instruction, max_chunks=max_chunks_per_doc)
                margins, rows = self.margins_and_rows(encoded, on_scored=on_scored, **options)
                probabilities = self.probability(margins)
                places, left_out = best_places(margins, probabilities, top_k, thresholds)
                results = [
                    RankResult(
                        i,
                        block[i].doc_id,
                        float(margins[i]),
                        float(probabilities[i]),
                        block[i].content if return_documents else None,
                        self.encoder.chunk(query, texts[i], instruction, row=rows[i]) if return_chunks else None,
                    )
                    for i in places
                ]
                collected.add(Ranking(results, left_out=left_out), offset)
                if explain is not None:
                    best = collected.places(explain)
                    read = {place: read[place] if place in read else texts[place - offset] for place in best}
        ranking = collected.ranking()
        for place, result in enumerate(ranking[:explain] if explain is not None else ()):
            weights = self._sentences(query, read[result.index], result.margin, instruction, max_chunks_per_doc)
            ranking[place] = result._replace(sentences=weights)
        return ranking

    def _sentences(
        self, query: str, text: str, margin: float, instruction: str | None, max_chunks: int | None
    ) -> tuple[SentenceWeight, ...]:
        """Every sentence of a text with what its margin owes to it."""
        places = sentences(text)
        shorter = [without(text, place) for place in places]
        margins = self.margins_of(self.encode(query, shorter, instruction, max_chunks=max_chunks))
        return sentence_weights(text, places, margin, margins)

    async def arank(self, query: str, documents: Iterable[DocumentLike], **options: Any) -> Ranking:
        """:meth:`rank` in a thread: the event loop stays free."""
        return await asyncio.to_thread(self.rank, query, documents, **options)

    def save(self, folder: str | os.PathLike[str], *, card: CardFacts | None = None) -> Path:
        """Write a checkpoint that prorank, sentence-transformers' ``CrossEncoder`` and transformers load.

        Read-outs for early exits go along. ``CrossEncoder`` gives the same margins for texts that fit. It knows neither
        ``excerpt`` nor ``max_window`` (a warning says so), cuts long prompts at their end, and takes a special token in
        a text for one.

        Args:
            card: what the model card says beyond the manifest: a licence, data, languages.

        Raises:
            ValueError: the backend holds no transformers model.
        """
        if not self.backend.capabilities.holds_model:
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
        model: Any = self.backend.model  # type: ignore[attr-defined]
        return save_checkpoint(Path(folder), model, tokenizer, manifest, cascade=self.cascade, card=card)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        message: str | None = None,
        token: str | None = None,
        license: str | None = None,
        datasets: Sequence[str] = (),
        language: Sequence[str] = (),
    ) -> str:
        """Upload what :meth:`save` writes to the Hugging Face hub; :meth:`from_pretrained` loads it by that name.

        Args:
            repository: ``owner/name``; made where there is none.
            private: whether a new one is.
            revision: the branch; default: main.
            message: of the commit.
            token: default: the environment's HF_TOKEN, or the saved login.
            license: the hub's identifier; default: the base's, where it is known.
            datasets: hub ids of the training data.
            language: ISO 639-1 codes.

        Returns:
            The address of the commit.

        Raises:
            ValueError: the name is none, the backend holds no transformers model, or the hub refuses.
        """
        check_repository("repository", repository)
        facts = CardFacts(repository, license, datasets, language)
        with tempfile.TemporaryDirectory(prefix="prorank-") as scratch:
            folder = self.save(Path(scratch) / repository.partition("/")[2], card=facts)
            return push_folder(folder, repository, private=private, revision=revision, message=message, token=token)

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
