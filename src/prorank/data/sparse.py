"""Sparse retrieval by a SPLADE encoder: a masked-language model whose word scores are the embedding.

weight of a word = log(1 + relu(its largest logit over the text's tokens)); score = dot product of query and document
(Formal et al. 2021, arXiv 2109.10086). Texts are computed once for a corpus and kept.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from prorank._optional import require
from prorank.data.collection import Collection
from prorank.data.encoders import MatrixFormat, encoder_folder, fast_dtype, identity_of, kept_vectors
from prorank.types import Run

__all__ = ["SparseEncoder", "sparse_encoder", "sparse_run"]

_DEFAULT = "splade-tiny"


class SparseEncoder:
    """A ``...ForMaskedLM`` checkpoint that was trained as a SPLADE encoder.

    Args:
        name: a built-in name (``prorank models``), a folder or a hub id; None for splade-tiny.
        batch_size: texts in one forward pass.
        dtype: ``float32``, ``bfloat16``, or ``fast``: what the processor computes faster.
        max_tokens: of a text; the rest is cut off.

    Raises:
        ImportError: scipy is not installed.
        ValueError: the model cannot be fetched or read, or is a bi-encoder.
    """

    def __init__(
        self, name: str | None = None, batch_size: int = 8, dtype: str = "float32", max_tokens: int = 256
    ) -> None:
        require("scipy", extra="evaluate")
        import torch
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        folder, self.name = encoder_folder(name or _DEFAULT, "sparse-encoder")
        dtype = fast_dtype() if dtype == "fast" else dtype
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": Path(folder).is_dir()}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **options)
            model: Any = AutoModelForMaskedLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True, **options
            )
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(f"sparse-encoder: {name} cannot be loaded as a masked language model: {first}") from error
        self.model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self.identity = f"splade {max_tokens} {dtype} {identity_of(folder)}"
        self.batch_size, self.max_tokens = batch_size, max_tokens

    def encode(self, texts: Sequence[str], *, batch_size: int | None = None) -> Any:
        """Word weights as a scipy CSR matrix ``(n, vocabulary)`` float32; queries and documents alike."""
        import torch
        from scipy.sparse import csr_array, vstack

        if not texts:
            return csr_array((0, self.model.config.vocab_size), dtype=np.float32)
        size = batch_size or self.batch_size
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows: list[Any] = []
        for start in range(0, len(order), size):
            chosen = [texts[i] for i in order[start : start + size]]
            inputs = self.tokenizer(
                chosen, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            ).to(self.model.device)
            with torch.inference_mode():
                logits = self.model(**inputs).logits
                # The maximum first: log1p and relu keep the order, and are then computed once a word, in float32.
                outside = inputs["attention_mask"][:, :, None] == 0
                best = logits.masked_fill_(outside, -torch.inf).amax(1).float().relu().log1p()
            rows.append(csr_array(best.cpu().numpy()))
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return vstack(rows, format="csr")[back]

    def documents(self, collection: Collection, *, progress: bool = True) -> Any:
        """Weights of all documents in the collection's order, from the cache where they are there."""
        return kept_vectors(self.name, self.identity, collection, self.encode, _FORMAT, progress=progress)


def sparse_run(collection: Collection, top_k: int, name: str | None = None) -> Run:
    """Rank all documents for each query by the dot product; equal scores keep the corpus's order."""
    encoder = sparse_encoder(name)
    documents, doc_ids = encoder.documents(collection), list(collection.documents)
    run: dict[str, dict[str, float]] = {}
    for query in collection.queries.values():
        row = (documents @ encoder.encode([query.text]).T).toarray()[:, 0]
        order = np.argsort(-row, kind="stable")[:top_k]
        run[query.query_id] = {doc_ids[i]: float(row[i]) for i in order}
    return run


@lru_cache(maxsize=2)
def sparse_encoder(name: str | None = None, dtype: str = "float32") -> SparseEncoder:
    """A loaded sparse encoder; the last two are kept in memory."""
    return SparseEncoder(name, dtype=dtype)


def _npz(matrix: Any) -> bytes:
    from scipy.sparse import save_npz

    buffer = io.BytesIO()
    save_npz(buffer, matrix)
    return buffer.getvalue()


def _from_npz(path: Path) -> Any:
    import zipfile

    from scipy.sparse import csr_array, load_npz

    try:
        return csr_array(load_npz(path))
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error


def _stacked(parts: Sequence[Any]) -> Any:
    from scipy.sparse import vstack

    return vstack(parts, format="csr")


_FORMAT = MatrixFormat(".npz", _npz, _from_npz, _stacked)
