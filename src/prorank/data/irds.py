"""Collections by `ir_datasets` id (``irds:beir/nfcorpus/test``): downloads on first use, so it needs the internet."""

from __future__ import annotations

from typing import Any

from prorank._optional import require
from prorank.data.collection import Collection, without_unknown
from prorank.types import Document, Query

__all__ = ["load_irds"]


def load_irds(dataset_id: str, split: str | None = None) -> Collection:
    """Load an `ir_datasets` dataset; its scored documents, where it has some, become the candidates.

    Args:
        split: appended to the id (``beir/nfcorpus`` + ``test``), for those who like to name it apart.

    Raises:
        ImportError: `ir_datasets` is not installed.
        ValueError: the id is unknown, the dataset has no documents or no queries, or a document is judged
            twice, differently.
    """
    ir_datasets = require("ir_datasets", extra="ir-datasets")
    full_id = f"{dataset_id}/{split}" if split and not dataset_id.endswith(f"/{split}") else dataset_id
    try:
        dataset = ir_datasets.load(full_id)
    except KeyError:
        raise ValueError(f"data: ir_datasets knows no {full_id!r}; its catalogue lists the ids") from None
    for kind in ("docs", "queries"):
        if not getattr(dataset, f"has_{kind}")():
            raise ValueError(f"data: the ir_datasets dataset {full_id!r} has no {kind}; name one of its subsets")
    documents = {d.doc_id: _document(d) for d in dataset.docs_iter()}
    queries = {q.query_id: Query(q.query_id, _query_text(q)) for q in dataset.queries_iter()}
    qrels: dict[str, dict[str, int]] = {}
    if dataset.has_qrels():
        for judgment in dataset.qrels_iter():
            relevance = max(int(judgment.relevance), 0)
            if qrels.setdefault(judgment.query_id, {}).setdefault(judgment.doc_id, relevance) != relevance:
                raise ValueError(
                    f"data: {full_id}: query {judgment.query_id!r} and document {judgment.doc_id!r} are judged twice, "
                    "differently"
                )
        qrels = without_unknown(qrels, queries, f"data: {full_id}", "its queries")
        queries = {query_id: queries[query_id] for query_id in qrels}
    candidates: dict[str, dict[str, float]] | None = None
    if dataset.has_scoreddocs():
        scored: dict[str, dict[str, float]] = {}
        for row in dataset.scoreddocs_iter():
            scored.setdefault(row.query_id, {})[row.doc_id] = float(row.score)
        candidates = {q: dict(sorted(ds.items(), key=lambda item: -item[1])) for q, ds in scored.items()}
    return Collection(full_id, documents, queries, qrels, split, candidates=candidates)


def _document(row: Any) -> Document:
    title = getattr(row, "title", "") or ""
    text = getattr(row, "text", None) or getattr(row, "body", None)
    if text is None:
        return Document(row.doc_id, row.default_text())
    return Document(row.doc_id, text, title)


def _query_text(row: Any) -> str:
    for field in ("text", "title", "query"):
        if getattr(row, field, None):
            return str(getattr(row, field))
    return str(row.default_text())
