"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``, each plain or ``.gz``; read in place.

Beyond BEIR: ``runs/NAME.SPLIT.trec[.gz]`` holds first stages that come with the collection.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from prorank.data.collection import Collection, pick_split, without_unknown
from prorank.data.lines import existing, json_lines, malformed, text_lines, whole_number, write_text
from prorank.types import Document, Query, label

__all__ = ["is_beir", "load_beir", "splits", "write_beir"]


def is_beir(folder: Path) -> bool:
    """Whether the folder holds a corpus and queries by BEIR's names."""
    return existing(folder / "corpus.jsonl") is not None and existing(folder / "queries.jsonl") is not None


def splits(folder: Path) -> list[str]:
    """Names of the judgment files, in alphabetical order."""
    return sorted({p.name.removesuffix(".gz").removesuffix(".tsv") for p in (folder / "qrels").glob("*.tsv*")})


def load_beir(folder: Path, split: str | None = None) -> Collection:
    """Read a BEIR folder.

    A split whose file of judgments is empty has the queries that no other split judges: a teacher may score them.

    Raises:
        ValueError: a line is malformed, an id comes twice, the split is unknown, or no judged query is there.
            Judgments of some queries that are not there are left out with a warning.
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
        documents[doc_id] = Document(doc_id, _field(row, "text", corpus, number), _field(row, "title", corpus, number))
    queries: dict[str, Query] = {}
    for number, row in json_lines(queries_file):
        query_id = _field(row, "_id", queries_file, number)
        if query_id in queries:
            raise malformed(queries_file, number, f"the _id {query_id!r} comes a second time")
        queries[query_id] = Query(query_id, _field(row, "text", queries_file, number))
    qrels: dict[str, dict[str, int]] = {}
    if chosen is not None:
        path, judged = _read_qrels(folder, chosen)
        qrels = without_unknown(judged, queries, str(path), queries_file.name)
        queries = {q: queries[q] for q in qrels} if qrels else _of_no_split(folder, chosen, queries)
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
        rows = (_judgment(q, d, r) for q, judgments in collection.qrels.items() for d, r in judgments.items())
        write_text(
            folder / "qrels" / f"{collection.split or 'test'}.tsv",
            iter(["query-id\tcorpus-id\tscore", *rows]),
        )


def _of_no_split(folder: Path, chosen: str, queries: dict[str, Query]) -> dict[str, Query]:
    """The queries of a split without any judgment: those that no other split judges."""
    taken = {query_id for split in splits(folder) if split != chosen for query_id in _read_qrels(folder, split)[1]}
    return {query_id: query for query_id, query in queries.items() if query_id not in taken}


def _read_qrels(folder: Path, split: str) -> tuple[Path, dict[str, dict[str, int]]]:
    path = existing(folder / "qrels" / f"{split}.tsv")
    if path is None:
        raise ValueError(f"split: {folder / 'qrels'} holds no {split}.tsv")
    qrels: dict[str, dict[str, int]] = {}
    for number, line in text_lines(path):
        cells = next(csv.reader([line], delimiter="\t")) if '"' in line else line.split("\t")
        if len(cells) != 3:
            raise malformed(path, number, f"expected query-id, corpus-id and score by tabs, got {len(cells)} cells")
        query_id, doc_id, score = cells
        relevance = whole_number(score)
        if relevance is None:
            if number == 1 and _is_word(score):
                continue  # a header, whatever its names: BEIR's own loader skips the first line unread
            raise malformed(path, number, f"the score must be an integer, got {score!r}")
        if qrels.setdefault(query_id, {}).setdefault(doc_id, relevance) != relevance:
            raise malformed(path, number, f"query {query_id!r} and document {doc_id!r} are judged twice, differently")
    return path, qrels


def _is_word(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return bool(cell.strip())
    return False


def _field(row: dict[str, Any], name: str, path: Path, number: int) -> str:
    value = row.get(name)
    try:
        if name != "text":
            text = label(value, name)
            if name == "title" or text:
                return text
        elif isinstance(value, str):
            return value
    except ValueError as error:
        raise malformed(path, number, str(error)) from None
    raise malformed(path, number, f"the field {name!r} must be a string, got {value!r:.60}")


def _judgment(query_id: str, doc_id: str, relevance: int) -> str:
    """A line of judgments; cells with a tab or a quote are quoted, as BEIR's loader reads them."""
    for value in (query_id, doc_id):
        if "\n" in value or "\r" in value:
            raise ValueError(f"BEIR's judgments cannot carry an id with a line end: {value!r}")
    line = io.StringIO()
    csv.writer(line, delimiter="\t", lineterminator="").writerow([query_id, doc_id, relevance])
    return line.getvalue()


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
