"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``, each plain or ``.gz``; read in place.

Beyond BEIR: ``runs/NAME.SPLIT.trec[.gz]`` holds first stages that come with the collection.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prorank.data.collection import Collection, pick_split
from prorank.data.lines import existing, json_lines, malformed, text_lines, write_text
from prorank.types import Document, Query

__all__ = ["is_beir", "load_beir", "splits", "write_beir"]


def is_beir(folder: Path) -> bool:
    """Whether the folder holds a corpus and queries by BEIR's names."""
    return existing(folder / "corpus.jsonl") is not None and existing(folder / "queries.jsonl") is not None


def splits(folder: Path) -> list[str]:
    """Names of the judgment files, in alphabetical order."""
    return sorted({p.name.removesuffix(".gz").removesuffix(".tsv") for p in (folder / "qrels").glob("*.tsv*")})


def load_beir(folder: Path, split: str | None = None) -> Collection:
    """Read a BEIR folder.

    Raises:
        ValueError: a line is malformed, an id comes twice, a judged query does not exist, or the split is unknown.
    """
    chosen = pick_split(folder, splits(folder), split)
    corpus, queries_file = existing(folder / "corpus.jsonl"), existing(folder / "queries.jsonl")
    if corpus is None or queries_file is None:
        raise ValueError(f"data: {folder} lacks corpus.jsonl or queries.jsonl (plain or .gz)")
    documents: dict[str, Document] = {}
    for number, row in json_lines(corpus):
        doc_id = _field(row, "_id", corpus, number)
        if doc_id in documents:
            raise malformed(corpus, number, f"the _id {doc_id!r} comes a second time")
        title = _field(row, "title", corpus, number) if row.get("title") is not None else ""
        documents[doc_id] = Document(doc_id, _field(row, "text", corpus, number), title)
    queries: dict[str, Query] = {}
    for number, row in json_lines(queries_file):
        query_id = _field(row, "_id", queries_file, number)
        if query_id in queries:
            raise malformed(queries_file, number, f"the _id {query_id!r} comes a second time")
        queries[query_id] = Query(query_id, _field(row, "text", queries_file, number))
    qrels: dict[str, dict[str, int]] = {}
    if chosen is not None:
        qrels = _read_qrels(folder, chosen, queries)
        queries = {query_id: queries[query_id] for query_id in qrels}
    runs = {
        run.name.removesuffix(".gz").removesuffix(f".{chosen}.trec"): run
        for run in sorted((folder / "runs").glob(f"*.{chosen}.trec*"))
    }
    return Collection(folder.resolve().name, documents, queries, qrels, chosen, runs=runs)


def write_beir(collection: Collection, folder: Path) -> None:
    """Write a collection as a BEIR folder (plain files); its split is called "test" where it has no name."""
    write_text(
        folder / "corpus.jsonl",
        (_json({"_id": d.doc_id, "title": d.title, "text": d.text}) for d in collection.documents.values()),
    )
    write_text(
        folder / "queries.jsonl", (_json({"_id": q.query_id, "text": q.text}) for q in collection.queries.values())
    )
    if collection.qrels:
        rows = (f"{q}\t{d}\t{r}" for q, judgments in collection.qrels.items() for d, r in judgments.items())
        write_text(
            folder / "qrels" / f"{collection.split or 'test'}.tsv",
            iter(["query-id\tcorpus-id\tscore", *rows]),
        )


def _read_qrels(folder: Path, split: str, queries: dict[str, Query]) -> dict[str, dict[str, int]]:
    path = existing(folder / "qrels" / f"{split}.tsv")
    if path is None:
        raise ValueError(f"split: {folder / 'qrels'} holds no {split}.tsv")
    qrels: dict[str, dict[str, int]] = {}
    for number, line in text_lines(path):
        cells = line.split("\t")
        if number == 1 and cells[0] == "query-id":
            continue
        if len(cells) != 3:
            raise malformed(path, number, f"expected query-id, corpus-id and score by tabs, got {len(cells)} cells")
        query_id, doc_id, score = cells
        if query_id not in queries:
            raise malformed(path, number, f"the query {query_id!r} is not in queries.jsonl")
        try:
            relevance = int(score)
        except ValueError:
            raise malformed(path, number, f"the score must be an integer, got {score!r}") from None
        if qrels.setdefault(query_id, {}).setdefault(doc_id, relevance) != relevance:
            raise malformed(path, number, f"query {query_id!r} and document {doc_id!r} are judged twice, differently")
    return qrels


def _field(row: dict[str, Any], name: str, path: Path, number: int) -> str:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and name == "_id":
        value = str(value)
    if not isinstance(value, str) or (name == "_id" and not value):
        raise malformed(path, number, f"the field {name!r} must be a string, got {value!r:.60}")
    return value


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
