"""First stages: the candidates a reranker is given. BM25, a dense bi-encoder, their fusion, or a given run.

Computed runs and embeddings are kept on disk under the hash of everything they depend on (texts, settings, library
versions), in prorank's cache folder (``PRORANK_CACHE`` moves it), so that a changed text never
meets a stale result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prorank._optional import check
from prorank.data.cached import cached
from prorank.data.collection import Collection
from prorank.data.encoders import encoder_row
from prorank.types import Run

__all__ = ["check_spec", "first_stage", "fuse"]


def first_stage(spec: str | Path, collection: Collection, top_k: int = 100) -> Run:
    """Candidates for every query of the collection, best first.

    A document with the query's own id is left out where the collection says so (``Collection.keeps_own``).

    Args:
        spec: ``bm25``; ``dense`` (the offline MiniLM) or ``dense:MODEL`` (a built-in bi-encoder, or any of
            sentence-transformers); ``sparse`` (splade-tiny) or ``sparse:MODEL`` (any SPLADE encoder); ``fused``
            (reciprocal ranks of BM25 and MiniLM); ``given`` (lists that came with the data) or ``given:NAME`` (a run
            in the collection's own folder); or the path of a TREC run.
        top_k: at most so many documents a query.

    Raises:
        ValueError: the spec is unknown, the run names documents that the collection lacks, or ``top_k`` < 1.
        ImportError: the library is not installed; says what to install.
    """
    if top_k < 1:
        raise ValueError(f"top-k must be at least 1, got {top_k}")
    if collection.own_documents:
        return collection.without_own(_lists(spec, collection, top_k + 1), top_k)
    return _lists(spec, collection, top_k)


def _lists(spec: str | Path, collection: Collection, top_k: int) -> Run:
    name, _, rest = str(spec).partition(":")
    if name == "bm25" and not rest:
        from prorank.data import bm25

        return cached(bm25.key(collection, top_k), lambda: bm25.bm25_run(collection, top_k))
    if name == "dense":
        from prorank.data import dense

        return dense.dense_run(collection, top_k, rest or None)
    if name == "sparse":
        from prorank.data import sparse

        return sparse.sparse_run(collection, top_k, rest or None)
    if name == "fused" and not rest:
        depth = max(top_k, 100)
        return fuse([first_stage("bm25", collection, depth), first_stage("dense", collection, depth)], top_k=top_k)
    if name == "given":
        return _given(collection, rest, top_k)
    check_spec(spec)
    return _from_file(Path(spec), collection, top_k)


def check_spec(spec: str | Path) -> None:
    """Whether :func:`first_stage` knows the name and finds its library; nothing is computed.

    Raises:
        ValueError: it is no name of a first stage, nor the path of a file; or the folder of ``dense:FOLDER`` is not
            there.
        ImportError: the library is not installed; says what to install.
    """
    name, _, rest = str(spec).partition(":")
    if (name in ("bm25", "fused") and not rest) or name in ("dense", "sparse"):
        if name not in ("dense", "sparse"):
            check("bm25s", "Stemmer", extra="evaluate")
        if name in ("dense", "fused"):
            check("sentence_transformers", extra="evaluate")
        if name == "sparse":
            check("scipy", extra="evaluate")
        if rest:
            encoder_row(rest, "sparse-encoder" if name == "sparse" else "bi-encoder")
        if rest.startswith((".", "/", "~")) and not Path(rest).is_dir():
            raise ValueError(f"first-stage: {spec}: there is no folder {rest}")
    elif name != "given" and not Path(spec).is_file():
        raise ValueError(
            f"first-stage: {str(spec)!r} is not a run file or one of bm25, dense[:MODEL], sparse[:MODEL], "
            "fused, given[:NAME]"
        )


def fuse(runs: Sequence[Run], top_k: int | None = None, k: int = 60) -> Run:
    """Reciprocal rank fusion: score = sum of 1 / (k + rank) over the runs (Cormack et al., SIGIR 2009; k = 60).

    Equal scores keep the order of the first run, then of the next.
    """
    fused: dict[str, dict[str, float]] = {}
    for run in runs:
        for query_id, documents in run.items():
            scores = fused.setdefault(query_id, {})
            for rank, doc_id in enumerate(documents, 1):
                scores[doc_id] = scores.get(doc_id, 0.0) + 1.0 / (k + rank)
    return {q: dict(sorted(scores.items(), key=lambda item: -item[1])[:top_k]) for q, scores in fused.items()}


def _given(collection: Collection, name: str, top_k: int) -> Run:
    if name in collection.runs:
        return _from_file(collection.runs[name], collection, top_k)
    if not name and collection.candidates is not None:
        return {q: dict(list(documents.items())[:top_k]) for q, documents in collection.candidates.items()}
    if not name and len(collection.runs) == 1:
        return _from_file(next(iter(collection.runs.values())), collection, top_k)
    there = ", ".join(f"given:{run}" for run in collection.runs) or "none"
    raise ValueError(f"first-stage: {'given:' + name if name else 'given'}: {collection.name} came with: {there}")


def _from_file(path: Path, collection: Collection, top_k: int) -> Run:
    from prorank.data.trec import read_run

    run = read_run(path, None if collection.dropped else top_k)
    kept: dict[str, dict[str, float]] = {}
    for query_id in collection.queries:
        if query_id in run:
            listed = [(d, score) for d, score in run[query_id].items() if d not in collection.dropped]
            kept[query_id] = dict(listed[:top_k])
            unknown = [doc_id for doc_id in kept[query_id] if doc_id not in collection.documents]
            if unknown:
                raise ValueError(
                    f"first-stage: {path} lists {unknown[0]!r} for query {query_id!r}, "
                    f"which is not in {collection.name}"
                )
    if not kept:
        raise ValueError(f"first-stage: {path} has none of the queries of {collection.name} ({collection.split})")
    return kept
