"""Documents from files and frames: rows arrive whole and by their own ids, or the row is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank.data.documents import read_documents, read_queries, read_trec_lists
from prorank.types import Document, as_documents

ROWS = {
    "id": [1, 2, None],
    "title": ["T", None, "U"],
    "text": ["A vaccine", "Bread, and flour", "Cars"],
    "n": [1, 2, 3],
}
WANTED = [Document("1", "A vaccine", "T"), Document("2", "Bread, and flour"), Document("2", "Cars", "U")]
"""The third has no id: its index."""


def frame(kind: str, columns: dict[str, list[Any]]) -> Any:
    """Columns as a frame or table of a library, None as that library writes it."""
    if kind == "polars":
        return pytest.importorskip("polars").DataFrame(columns, strict=False)
    if kind.startswith("pandas"):
        made = pytest.importorskip("pandas").DataFrame(columns)
        return made.convert_dtypes() if kind == "pandas with NA" else made
    arrow = pytest.importorskip("pyarrow")
    return arrow.table(columns) if kind == "table" else arrow.record_batch(columns)


KINDS = ["pandas", "pandas with NA", "polars", "table", "record batch"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_frame_is_read_by_rows(kind: str) -> None:
    assert as_documents(frame(kind, ROWS)) == WANTED
    assert as_documents(frame(kind, {"Docno": ["a"], "other": [7], "Passage": ["x"]})) == [Document("a", "x")]
    assert as_documents(frame(kind, {"pid": [3, 4], "text": ["x", "y"]})) == [Document("3", "x"), Document("4", "y")]
    assert as_documents(frame(kind, {"text": ["x"]})) == [Document("0", "x")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_without_texts_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"documents: the \w+ has no column with texts .*, only name, value"):
        as_documents(frame(kind, {"name": ["a"], "value": [1]}))
    with pytest.raises(ValueError, match=r"the \w+ has two columns named 'text'"):
        as_documents(frame(kind, {"Text": ["a"], "text": ["b"]}))
    with pytest.raises(ValueError, match="document 1: expected a string under 'text', got nothing"):
        as_documents(frame(kind, {"text": ["a", None]}))


def test_an_index_of_ids_counts() -> None:
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame({"docno": ["a", "b"], "text": ["x", "y"]}).set_index("docno")
    assert as_documents(rows) == [Document("a", "x"), Document("b", "y")]
    assert as_documents(rows.reset_index(names="other")) == [Document("0", "x"), Document("1", "y")]


def test_a_frame_that_must_be_collected_first_is_refused() -> None:
    class LazyFrame:
        columns = ("text",)

    with pytest.raises(ValueError, match="documents: a LazyFrame is not read; collect it"):
        as_documents(LazyFrame())  # type: ignore[arg-type]


@pytest.mark.parametrize("absent", [None, float("nan"), np.float32("nan"), np.datetime64("NaT")])
def test_what_is_absent_is_no_title_and_no_id(absent: Any) -> None:
    if isinstance(absent, np.datetime64):
        absent = pytest.importorskip("pandas").NaT
    assert as_documents([{"_id": absent, "id": "x", "title": absent, "text": "a"}]) == [Document("x", "a")]
    assert as_documents([{"_id": absent, "title": absent, "text": "a"}]) == [Document("0", "a")]
    with pytest.raises(ValueError, match="document 0: expected a string under 'text', got nothing"):
        as_documents([{"text": absent}])


def test_numbers_are_ids_and_titles() -> None:
    for number in (7, 7.0, np.int64(7), np.float32(7)):
        assert as_documents([{"_id": number, "title": number, "text": "a"}]) == [Document("7", "a", "7")]
    assert as_documents([{"_id": 10**400, "text": "a"}]) == [Document("1" + "0" * 400, "a")]
    assert as_documents([{"_id": 0, "title": 1.5, "text": "a"}]) == [Document("0", "a", "1.5")]


@pytest.mark.parametrize("value", [["x"], {"x": 1}, True, b"x", np.array([1])])
@pytest.mark.parametrize("name", ["title", "_id", "docno", "pid"])
def test_other_kinds_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"document 1: the field '{name}' must be a string or a number, got"):
        as_documents(["a", {name: value, "text": "a"}])


def test_json_lines_with_nan_as_python_writes_them(tmp_path: Path) -> None:
    rows = [{"_id": 1, "title": float("nan"), "text": "Bread"}, {"_id": float("nan"), "text": "Flour"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "d.json").write_text(json.dumps(rows))
    assert read_documents(tmp_path / "d.jsonl") == [Document("1", "Bread"), Document("1", "Flour")]
    assert read_documents(tmp_path / "d.json") == read_documents(tmp_path / "d.jsonl")


@pytest.mark.parametrize("name", ["docno", "pid", "docid", "doc_id", "_id", "id"])
@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "json", "csv.gz", "parquet"])
def test_ids_by_their_common_names(tmp_path: Path, name: str, form: str) -> None:
    path = tmp_path / f"d.{form}"
    if form == "parquet":
        table = pytest.importorskip("pyarrow").table({name: ["x7"], "passage": ["Bread"], "more": [1]})
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    elif form.startswith("json"):
        path.write_text(json.dumps({name: "x7", "passage": "Bread"}))
    else:
        text = f"{name}\tpassage\nx7\tBread\n".replace("\t", "\t" if form == "tsv" else ",")
        path.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    assert read_documents(path) == [Document("x7", "Bread")]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ('id,text\n1,"A vaccine, with a comma"\n2,"said ""no"""\n', ["A vaccine, with a comma", 'said "no"']),
        ("id,text,\n1,A vaccine,\n2,Bread,,\n", ["A vaccine", "Bread"]),
        ("id,text\r\n1,A vaccine\r\n\r\n2,Bread\r\n", ["A vaccine", "Bread"]),
        ("id,text\r1,A vaccine\r2,Bread\r", ["A vaccine", "Bread"]),
        ('id,text\n1,"two\nlines"\n2,"a\rb"\n', ["two\nlines", "a\rb"]),
        ('\ufeffid,text\n1,5" pipe\n2,Bread', ['5" pipe', "Bread"]),
        ("text,note\nA vaccine\nBread,x\n", ["A vaccine", "Bread"]),  # an unread column may be missing
    ],
)
def test_csv_cells_arrive_whole(tmp_path: Path, content: str, wanted: list[str]) -> None:
    (tmp_path / "d.csv").write_bytes(content.encode())
    assert [document.text for document in read_documents(tmp_path / "d.csv")] == wanted


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("id,text\n1,A\n2,B, and C\n", "3: expected 2 cells as in the header, got 3"),
        ('id,text\n1,"A\nB"\n2,B,,C\n', "4: expected 2 cells as in the header, got 4"),
        ("text,id\nA line\nand its rest,1\n", "2: expected 2 cells as in the header, got 1"),
        ('id,text\n1,"A vaccine\n2,Bread\n', "2: not CSV: unexpected end of data"),
        ("text,id,text\nA,1,B\n", "1: the header has two columns named 'text'"),
        ("id,ID,text\n1,2,B\n", "1: the header has two columns named 'id'"),
        ("note,note,text\n1,2,B\n", "1: the header has two columns named 'note'"),
        ("a,b\n1,2\n", "1: the header has no column with texts .*, only a, b"),
        ("", "1: there is no header"),
    ],
)
def test_csv_that_would_lose_text_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "d.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"d\.csv:{reason}"):
        read_documents(tmp_path / "d.csv")


def test_other_readers_of_columns_keep_the_same_rules(tmp_path: Path) -> None:
    tsv = tmp_path / "d.tsv"
    tsv.write_text("id\ttext\t\n1\tA\t\t\n")
    assert read_documents(tsv) == [Document("1", "A")]
    for content, reason in {
        "id\ttext\n1\tA\tB\n": "2: expected 2 cells as in the header, got 3",
        "text\tid\ttext\nA\t1\tB\n": "1: the header has two columns named 'text'",
    }.items():
        tsv.write_text(content)
        with pytest.raises(ValueError, match=rf"d\.tsv:{reason}"):
            read_documents(tsv)
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"Text": ["a"], "text": ["b"]}), tmp_path / "d.parquet")
    with pytest.raises(ValueError, match=r"d\.parquet: the table has two columns named 'text'"):
        read_documents(tmp_path / "d.parquet")
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n{"text": "a", "text": "b"}\n')
    with pytest.raises(ValueError, match=r"d\.jsonl:2: the key 'text' comes twice"):
        read_documents(tmp_path / "d.jsonl")
    (tmp_path / "d.json").write_text('[{"text": "a"},\n {"text": "a" "b"}]')
    with pytest.raises(ValueError, match=r"d\.json:2: not JSON"):
        read_documents(tmp_path / "d.json")


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "json", "txt"])
def test_damaged_gzip_is_named(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"d.{form}.gz"
    rows = [f'"{n * 7919 % 10007} {n}"' for n in range(5000)]
    whole = gzip.compress("\n".join(["text", *rows] if form == "csv" else rows).encode())
    broken = bytearray(whole)
    broken[len(broken) // 2 : len(broken) // 2 + 40] = b"\xff" * 40
    for content in (whole[: len(whole) // 2], b"id,text\n1,a\n", bytes(broken), whole + b"more"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"d\.{form}\.gz:\d+: the gzip stream is damaged"):
            read_documents(path)
    path.write_bytes(gzip.compress(b'"text"\n"\xff"\n'))
    with pytest.raises(ValueError, match=rf"d\.{form}\.gz:2: not UTF-8"):
        read_documents(path)


def test_a_line_that_is_not_utf8_is_found_in_a_long_csv(tmp_path: Path) -> None:
    lines = [b"id,text\n", *(b"%d,word\n" % n for n in range(3000))]
    lines[2000] = b"1,\xff\n"
    (tmp_path / "d.csv").write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match=r"d\.csv:2001: not UTF-8 \(byte 2 is 0xff\)"):
        read_documents(tmp_path / "d.csv")


@pytest.fixture
def lists(tmp_path: Path) -> Any:
    """Read a run of one document ``a`` for ``q1`` with these corpus and query lines."""
    (tmp_path / "r.trec").write_text("q1 Q0 a 1 2.0 x\n")

    def read(corpus: list[dict[str, Any]], queries: list[dict[str, Any]]) -> Any:
        for name, rows in (("corpus", corpus), ("queries", queries)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = read_queries(tmp_path / "queries.jsonl")
        return list(read_trec_lists(tmp_path / "r.trec", tmp_path / "corpus.jsonl", found))

    return read


def test_one_id_of_two_texts_is_refused(lists: Any) -> None:
    a, query = {"_id": "a", "text": "A vaccine"}, {"_id": "q1", "text": "vaccines"}
    wanted = [("q1", "vaccines", [Document("a", "A vaccine")])]
    assert lists([a, a], [query, query]) == wanted
    assert lists([a], [{"query_id": "q1", "query": "vaccines"}]) == wanted
    assert lists([a], [{"qid": "q1", "text": "vaccines"}]) == wanted
    for other in ({"_id": "a", "text": "Bread"}, {"_id": "a", "title": "T", "text": "A vaccine"}):
        with pytest.raises(ValueError, match=r"corpus\.jsonl:2: the id 'a' names two different texts"):
            lists([a, other], [query])
    with pytest.raises(ValueError, match=r"queries\.jsonl:3: the id 'q1' names two different texts"):
        lists([a], [query, {"_id": "q2", "text": "x"}, {"_id": "q1", "text": "bread"}])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"_id": "a", "text": "x"}, {"_id": "my file#1", "text": "y"}], "2: .* white space: 'my file#1'"),
        ([{"_id": "a", "text": "x"}, "", {"_id": "", "text": "y"}], "3: .* an empty id"),
        ([{"_id": "a", "text": "x"}, {"_id": "a", "text": "x"}], "2: the id 'a' comes a second time"),
        ([{"_id": "1", "text": "x"}, {"text": "y"}], "2: the id '1' comes a second time"),
    ],
)
def test_ids_that_a_run_cannot_hold_are_named_by_line(tmp_path: Path, rows: list[Any], reason: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("".join((json.dumps(row) if row else "") + "\n" for row in rows))
    assert len(read_documents(path)) == 2
    with pytest.raises(ValueError, match=rf"d\.jsonl:{reason}"):
        read_documents(path, for_trec=True)
