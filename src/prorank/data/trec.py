"""TREC files: runs, qrels, topics, and folders of them (``collection.tsv``, ``topics.tsv``, ``qrels.SPLIT.txt``).

A run here keeps its rank order: by score, and where scores are equal by the rank column, as its maker meant it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prorank.data.collection import Collection, pick_split, without_unknown
from prorank.data.lines import existing, malformed, text_lines, whole_number, write_text
from prorank.types import Document, Query, Run

__all__ = [
    "is_trec", "load_trec", "read_qrels", "read_run", "read_topics", "run_lines", "run_name", "splits", "trec_id",
    "write_run", "write_trec",
]  # fmt: skip


def run_name(path: str | Path) -> str:
    """What a run file is called in a table: its name without ``.trec`` and ``.gz``."""
    return Path(path).name.removesuffix(".gz").removesuffix(".trec")


def read_run(path: str | Path, top_k: int | None = None) -> Run:
    """Read a TREC run (``query_id Q0 doc_id rank score tag``, plain or .gz); each query's documents best first.

    Args:
        top_k: keep only so many documents a query.

    Raises:
        ValueError: a line has not six columns, a rank or score is no finite number, or a document comes twice.
    """
    path = Path(path)
    rows: dict[str, dict[str, tuple[float, int]]] = {}
    for number, line in text_lines(path):
        cells = line.split()
        if len(cells) != 6:
            raise malformed(path, number, f"expected 6 columns (query_id Q0 doc_id rank score tag), got {len(cells)}")
        query_id, _, doc_id, rank, score, _ = cells
        try:
            place, value = int(rank), float(score)
        except ValueError:
            raise malformed(path, number, f"rank and score must be numbers, got {rank!r} and {score!r}") from None
        if not math.isfinite(value):
            raise malformed(path, number, f"the score is not finite: {score}")
        documents = rows.setdefault(query_id, {})
        if doc_id in documents:
            raise malformed(path, number, f"document {doc_id!r} comes twice for query {query_id!r}")
        documents[doc_id] = (value, place)
    run: dict[str, dict[str, float]] = {}
    for query_id, documents in rows.items():
        ordered = sorted(documents.items(), key=lambda item: (-item[1][0], item[1][1]))
        run[query_id] = {doc_id: value for doc_id, (value, _) in ordered[:top_k]}
    return run


def write_run(path: str | Path, run: Run, tag: str = "prorank") -> None:
    """Write a TREC run in the mapping's order; equal content gives equal bytes.

    Raises:
        ValueError: an id is empty or holds white space, which the format cannot carry.
    """
    write_text(
        Path(path),
        (line for query_id, documents in run.items() for line in run_lines(query_id, documents.items(), tag)),
    )


def run_lines(query_id: str, documents: Iterable[tuple[str, float]], tag: str = "prorank") -> Iterator[str]:
    """The lines of one query in a TREC run.

    Args:
        documents: (doc_id, score), best first.
        tag: white space in it becomes hyphens.

    Raises:
        ValueError: an id is empty or holds white space, or a document comes twice: no reader would take it.
    """
    tag = re.sub(r"\s+", "-", tag.strip()) or "prorank"
    seen: set[str] = set()
    for rank, (doc_id, score) in enumerate(documents, 1):
        if doc_id in seen:
            raise ValueError(f"document {doc_id!r} comes twice for query {query_id!r}, which no TREC run may hold")
        seen.add(doc_id)
        yield f"{trec_id(query_id)} Q0 {trec_id(doc_id)} {rank} {float(score)!r} {tag}"


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read TREC judgments (``query_id iteration doc_id relevance``), negative ones as 0.

    Raises:
        ValueError: a line has not four columns, its relevance is no integer, or differs from an earlier line's.
    """
    path = Path(path)
    qrels: dict[str, dict[str, int]] = {}
    for number, line in text_lines(path):
        cells = line.split()
        if len(cells) != 4:
            raise malformed(path, number, f"expected 4 columns (query_id 0 doc_id relevance), got {len(cells)}")
        relevance = whole_number(cells[3])
        if relevance is None:
            raise malformed(path, number, f"the relevance must be an integer, got {cells[3]!r}")
        query_id, _, doc_id, _ = cells
        relevance = max(relevance, 0)
        if qrels.setdefault(query_id, {}).setdefault(doc_id, relevance) != relevance:
            raise malformed(path, number, f"query {query_id!r} and document {doc_id!r} are judged twice, differently")
    return qrels


def read_topics(path: str | Path) -> dict[str, Query]:
    """Read topics: ``query_id<TAB>text`` lines, or TREC's ``<top>`` records (number and title).

    Raises:
        ValueError: a line has no tab, a record has no number or title, or an id comes twice.
    """
    path = Path(path)
    lines = list(text_lines(path))
    topics: dict[str, Query] = {}
    if lines and lines[0][1].lstrip().lower().startswith("<top>"):
        return _sgml_topics(path, lines)
    for number, line in lines:
        query_id, tab, text = line.partition("\t")
        if not tab or not query_id.strip():
            raise malformed(path, number, "expected query_id<TAB>text")
        if query_id in topics:
            raise malformed(path, number, f"the query_id {query_id!r} comes a second time")
        topics[query_id] = Query(query_id, text)
    return topics


def trec_id(value: str) -> str:
    """The id itself.

    Raises:
        ValueError: TREC files cannot carry it.
    """
    if not value:
        raise ValueError("TREC files cannot carry an empty id; give every text an id")
    if re.search(r"\s", value):
        raise ValueError(f"TREC files cannot carry an id with white space: {value!r}; replace it in the ids first")
    return value


def is_trec(folder: Path) -> bool:
    """Whether the folder holds ``collection.tsv`` and ``topics*.tsv`` (plain or .gz)."""
    return existing(folder / "collection.tsv") is not None and any(folder.glob("topics*.tsv*"))


def splits(folder: Path) -> list[str]:
    """Names of the judgment files ``qrels.SPLIT.txt``, in alphabetical order."""
    found = (re.fullmatch(r"qrels\.(.+)\.txt(\.gz)?", p.name) for p in folder.glob("qrels.*"))
    return sorted({match[1] for match in found if match})


def load_trec(folder: Path, split: str | None = None) -> Collection:
    """Read a TREC folder.

    ``collection.tsv`` has ``doc_id<TAB>text`` or ``doc_id<TAB>title<TAB>text`` lines; topics come from
    ``topics.SPLIT.tsv`` or ``topics.tsv``; first stages from ``runs/NAME.SPLIT.trec``.

    Raises:
        ValueError: a file is missing, a line is malformed, the split is unknown, or no judged query is there. Judgments
            of some queries that are not there are left out with a warning.
    """
    chosen = pick_split(folder, splits(folder), split)
    path = existing(folder / "collection.tsv")
    topics = existing(folder / f"topics.{chosen}.tsv") or existing(folder / "topics.tsv")
    if path is None or topics is None:
        raise ValueError(f"data: {folder} lacks collection.tsv or topics.tsv (plain or .gz)")
    documents: dict[str, Document] = {}
    for number, line in text_lines(path):
        cells = line.split("\t")
        if len(cells) not in (2, 3) or not cells[0]:
            raise malformed(path, number, f"expected doc_id, [title,] text by tabs, got {len(cells)} cells")
        if cells[0] in documents:
            raise malformed(path, number, f"the doc_id {cells[0]!r} comes a second time")
        documents[cells[0]] = Document(cells[0], cells[-1], cells[1] if len(cells) == 3 else "")
    queries: Mapping[str, Query] = read_topics(topics)
    qrels: dict[str, dict[str, int]] = {}
    if chosen is not None:
        judgments = existing(folder / f"qrels.{chosen}.txt")
        assert judgments is not None
        qrels = without_unknown(read_qrels(judgments), queries, str(judgments), topics.name)
        queries = {query_id: queries[query_id] for query_id in qrels}
    runs = {
        p.name.removesuffix(".gz").removesuffix(f".{chosen}.trec"): p
        for p in sorted((folder / "runs").glob(f"*.{chosen}.trec*"))
    }
    return Collection(folder.resolve().name, documents, queries, qrels, chosen, runs=runs)


def write_trec(collection: Collection, folder: Path) -> None:
    """Write a collection as a TREC folder. Tabs and line ends inside a text become spaces (the format has no escape).

    Raises:
        ValueError: an id holds white space.
    """
    split = collection.split or "test"
    write_text(
        folder / "collection.tsv",
        (f"{trec_id(d.doc_id)}\t{_flat(d.title)}\t{_flat(d.text)}" for d in collection.documents.values()),
    )
    write_text(
        folder / f"topics.{split}.tsv", (f"{trec_id(q.query_id)}\t{_flat(q.text)}" for q in collection.queries.values())
    )
    if collection.qrels:
        write_text(
            folder / f"qrels.{split}.txt",
            (
                f"{trec_id(q)} 0 {trec_id(d)} {r}"
                for q, judgments in collection.qrels.items()
                for d, r in judgments.items()
            ),
        )
    if collection.candidates:
        write_run(folder / "runs" / f"given.{split}.trec", collection.candidates, "given")


def _sgml_topics(path: Path, lines: Sequence[tuple[int, str]]) -> dict[str, Query]:
    text = "\n".join(line for _, line in lines)
    topics: dict[str, Query] = {}
    for record in re.findall(r"<top>(.*?)(?=<top>|\Z)", text, re.S | re.I):
        number = re.search(r"<num>\s*(?:Number:)?\s*([^\s<]+)", record, re.I)
        title = re.search(r"<title>\s*(?:Topic:)?\s*(.*?)\s*(?=</?\w+>|\Z)", record, re.S | re.I)
        if number is None or title is None or not title[1]:
            line = next((n for n, row in lines if record.strip().split("\n")[0].strip() in row), 1)
            raise malformed(path, line, "a <top> record needs <num> and <title>")
        if number[1] in topics:
            raise ValueError(f"{path}: the topic {number[1]!r} comes a second time")
        topics[number[1]] = Query(number[1], " ".join(title[1].split()))
    return topics


def _flat(text: str) -> str:
    return re.sub(r"[\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", " ", text)
