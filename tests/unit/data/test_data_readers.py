"""Readers: every form gives the same collection, and a malformed line is named by file and number."""

from __future__ import annotations

import gzip
import json
import sys
from types import SimpleNamespace

import pytest

from prorank.data import load_collection, read_run, write_run
from prorank.data.collection import Collection
from prorank.data.convert import convert
from prorank.data.load import splits_of
from prorank.data.trec import read_qrels, read_topics
from prorank.types import Document, Query

SMALL = Collection(
    "small",
    {
        "d1": Document("d1", "Äpfel und Birnen", "Obst"),
        "d2": Document("d2", "a passage about cars"),
        "d3": Document("d3", ""),
    },
    {"q1": Query("q1", "which fruit"), "q2": Query("q2", "cars, please")},
    {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}},
    "test",
)


def write_small_beir(folder, gz=False):
    convert(SMALL, folder, "beir")
    if gz:
        for path in [*folder.glob("*.jsonl"), *folder.glob("qrels/*.tsv")]:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    return folder


def same(a, b, split=True):
    assert dict(a.documents) == dict(b.documents)
    assert dict(a.queries) == dict(b.queries)
    assert a.qrels == b.qrels
    assert (a.split == b.split) or not split


@pytest.mark.parametrize("gz", [False, True])
def test_beir_round_trip(tmp_path, gz):
    loaded = load_collection(write_small_beir(tmp_path / "small", gz))
    same(loaded, SMALL)
    assert loaded.name == "small"
    assert loaded.documents_hash == SMALL.documents_hash
    assert loaded.qrels_hash == SMALL.qrels_hash


def test_trec_round_trip(tmp_path):
    convert(SMALL, tmp_path / "t", "trec")
    same(load_collection(tmp_path / "t", "test"), SMALL)


def test_jsonl_round_trip_keeps_judged_documents(tmp_path):
    convert(SMALL, tmp_path / "small.jsonl.gz", "jsonl")
    loaded = load_collection(tmp_path / "small.jsonl.gz", "test")
    assert loaded.qrels == SMALL.qrels
    assert dict(loaded.queries) == dict(SMALL.queries)
    assert loaded.documents["d1"] == SMALL.documents["d1"]
    assert "d3" not in loaded.documents  # judged by nobody: lists do not carry it


def test_beir_to_trec_to_jsonl_to_beir(tmp_path):
    convert(load_collection(write_small_beir(tmp_path / "a")), tmp_path / "b", "trec")
    convert(load_collection(tmp_path / "b"), tmp_path / "c.jsonl", "jsonl")
    convert(load_collection(tmp_path / "c.jsonl", "test"), tmp_path / "d", "beir")
    final = load_collection(tmp_path / "d")
    assert final.qrels == SMALL.qrels
    assert list(final.runs) == ["given"]


def test_triples_and_lists_in_common_spellings(tmp_path):
    rows = [
        {"query": "a", "positive": "p", "negative": "n"},
        {"query": "a", "pos": ["p2"], "neg": ["n", "n2"]},
        {"query": {"query_id": "Q", "text": "b"}, "documents": ["x", "y"], "labels": [0, 2], "scores": [0.5, 3]},
        {"query": "c", "documents": [{"_id": "D", "title": "t", "text": "z"}]},
    ]
    path = tmp_path / "lists.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_collection(path)
    text = {d: document.text for d, document in loaded.documents.items()}
    assert [q.text for q in loaded.queries.values()] == ["a", "b", "c"]
    assert {text[d]: r for d, r in loaded.qrels["q1"].items()} == {"p": 1, "n": 0, "p2": 1, "n2": 0}
    assert [text[d] for d in loaded.candidates["Q"]] == ["y", "x"]  # by the teacher's scores
    assert loaded.documents["D"] == Document("D", "z", "t")
    assert "q3" not in loaded.qrels  # unlabelled


def test_a_split_without_judgments_has_the_queries_of_no_other_split(tmp_path):
    folder = write_small_beir(tmp_path / "small")
    judged = set(load_collection(folder).queries)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "unjudged", "text": "what a teacher scores"}\n')
    loaded = load_collection(folder, "train")
    assert judged
    assert list(loaded.queries) == ["unjudged"]
    assert loaded.qrels == {}


def test_splits_must_be_named_where_there_are_several(tmp_path):
    folder = write_small_beir(tmp_path / "small")
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td1\t1\n")
    assert splits_of(folder) == ["dev", "test"]
    with pytest.raises(ValueError, match="has dev, test; name one"):
        load_collection(folder)
    with pytest.raises(ValueError, match="'train' is not among them"):
        load_collection(folder, "train")
    assert list(load_collection(folder, "dev").queries) == ["q2"]


def test_a_collection_without_judgments_keeps_all_queries(tmp_path):
    folder = write_small_beir(tmp_path / "small")
    (folder / "qrels" / "test.tsv").unlink()
    loaded = load_collection(folder)
    assert loaded.qrels == {}
    assert len(loaded.queries) == 2


@pytest.mark.parametrize(
    ("file", "line", "content", "reason"),
    [
        ("corpus.jsonl", 2, '{"_id": "d2", "text": ', "not JSON"),
        ("corpus.jsonl", 2, '["d2"]', "expected a JSON object, got list"),
        ("corpus.jsonl", 2, '{"_id": "d2"}', "'text' must be a string, got None"),
        ("corpus.jsonl", 2, '{"_id": "d1", "text": ""}', "'d1' comes a second time"),
        ("queries.jsonl", 2, '{"_id": "q1", "text": "x"}', "'q1' comes a second time"),
        ("qrels/test.tsv", 3, "q1\td2", "got 2 cells"),
        ("qrels/test.tsv", 3, "q1\td2\tyes", "must be an integer, got 'yes'"),
        ("qrels/test.tsv", 3, "q1\td2\t0.5", "must be an integer, got '0.5'"),
        ("qrels/test.tsv", 1, "q1\td2", "got 2 cells"),
        ("qrels/test.tsv", 1, "q1\td2\tnan", "must be an integer, got 'nan'"),
        ("corpus.jsonl", 2, '{"_id": "d2", "text": NaN}', "'text' must be a string, got nan"),
        ("corpus.jsonl", 2, '{"_id": "d2", "text": "a", "text": "b"}', "the key 'text' comes twice"),
        ("corpus.jsonl", 2, '{"_id": "d2", "text": "a", "title": ["b"]}', "'title' must be a string or a number"),
        ("corpus.jsonl", 2, '{"_id": true, "text": "a"}', "'_id' must be a string or a number, got bool"),
        ("corpus.jsonl", 2, "[" * 100_000, "nested too deeply"),
        ("qrels/test.tsv", 3, "q1\td1\t1", "judged twice, differently"),
    ],
)
def test_a_malformed_beir_line_is_named(tmp_path, file, line, content, reason):
    folder = write_small_beir(tmp_path / "small")
    lines = (folder / file).read_text().splitlines()
    lines[line - 1] = content
    (folder / file).write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"{file}:{line}: .*{reason}"):
        load_collection(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"query": 3, "positive": "p"}, "'query' must be a string"),
        ({"query": "q"}, "expected 'documents', or 'positive' and 'negative'"),
        ({"query": "q", "documents": ["a"], "labels": [1, 0]}, "as long as 'documents'"),
        ({"query": "q", "documents": ["a"], "labels": ["1"]}, "relevance must be an integer, got '1'"),
        ({"query": "q", "documents": ["a"], "labels": [0.5]}, "relevance must be an integer"),
        ({"query": "q", "documents": [{"title": "t"}]}, "'text'"),
        ({"query": "q", "documents": ["a"], "scores": [float("nan")]}, "finite"),
    ],
)
def test_a_malformed_list_is_named(tmp_path, content, reason):
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"query": "a", "positive": "p"}) + "\n\n" + json.dumps(content))
    with pytest.raises(ValueError, match=rf"lists.jsonl:3: .*{reason}"):
        load_collection(path)


def test_damaged_bytes_are_named(tmp_path):
    folder = write_small_beir(tmp_path / "small", gz=True)
    corpus = folder / "corpus.jsonl.gz"
    whole = corpus.read_bytes()
    corpus.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"corpus.jsonl.gz:\d+: the gzip stream is damaged"):
        load_collection(folder)
    corpus.write_bytes(gzip.compress(b'{"_id": "d1", "text": "\xff"}'))
    with pytest.raises(ValueError, match=r"corpus.jsonl.gz:1: not UTF-8 \(byte 23 is 0xff\)"):
        load_collection(folder)


@pytest.mark.parametrize(
    "header",
    [
        None, "query-id\tcorpus-id\tscore", "query_id\tcorpus_id\tscore", "qid\tcid\tscore",
        "Query-ID\tCorpus-ID\tScore", '"query-id"\t"corpus-id"\t"score"',
    ],
)  # fmt: skip
def test_judgments_as_beir_reads_them(tmp_path, header):
    folder = write_small_beir(tmp_path / "small")
    rows = ["q1\td1\t2.0", '"q1"\t"d2"\t0', '"q2"\td2\t"1"']
    (folder / "qrels" / "test.tsv").write_text("\n".join([header, *rows] if header else rows))
    assert load_collection(folder).qrels == SMALL.qrels


def test_ids_with_tabs_and_quotes_survive_a_beir_folder(tmp_path):
    odd = Collection(
        "odd", {'"d"\t1': Document('"d"\t1', "x")}, {'"q': Query('"q', "y")}, {'"q': {'"d"\t1': 1}}, "test"
    )
    convert(odd, tmp_path / "odd", "beir")
    assert load_collection(tmp_path / "odd").qrels == odd.qrels
    lines = Collection("lines", {"a\nb": Document("a\nb", "x")}, {"q": Query("q", "y")}, {"q": {"a\nb": 1}}, "test")
    with pytest.raises(ValueError, match="cannot carry an id with a line end"):
        convert(lines, tmp_path / "lines", "beir")


def test_a_missing_title_is_no_title(tmp_path):
    folder = write_small_beir(tmp_path / "small")
    (folder / "corpus.jsonl").write_text(
        '{"_id": 1.0, "title": NaN, "text": "a"}\n{"_id": "2", "title": null, "text": "b"}\n{"_id": "3", "text": "c", '
        '"title": 1984}\n'
    )
    documents = load_collection(folder).documents
    assert list(documents.values()) == [Document("1", "a"), Document("2", "b"), Document("3", "c", "1984")]


@pytest.mark.parametrize("form", ["beir", "trec"])
def test_judgments_of_missing_queries_are_left_out_and_counted(tmp_path, caplog, form):
    folder = tmp_path / "c"
    convert(SMALL, folder, form)
    path, sep = (folder / "qrels" / "test.tsv", "\t") if form == "beir" else (folder / "qrels.test.txt", " 0 ")
    tail = "\t1" if form == "beir" else " 1"
    lines = [f"q9{sep}d1{tail}", f"q9{sep}d2{tail}", f"q8{sep}d1{tail}"]
    path.write_text(path.read_text() + "\n".join(lines))
    same(load_collection(folder, "test"), SMALL)
    source = "queries.jsonl" if form == "beir" else "topics.test.tsv"
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}: left out 3 judgments of 2 queries that are missing from {source}, first 'q9'"
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=f"{path.name}: none of the 2 judged queries is in {source}, first 'q9'"):
        load_collection(folder, "test")


def test_nothing_known_lists_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="neither a BEIR folder"):
        load_collection(tmp_path)
    with pytest.raises(ValueError, match="is not a file, a folder, 'stdlib'"):
        load_collection("nowhere")


def test_run_round_trip_and_order(tmp_path):
    run = {"q": {"b": 2.5, "a": 0.1}, "p": {"c": -1e-9}}
    write_run(tmp_path / "r.trec.gz", run, "my tag")
    back = read_run(tmp_path / "r.trec.gz")
    assert back == run
    assert list(back["q"]) == ["b", "a"]
    (tmp_path / "r.trec").write_text("q Q0 a 2 1.0 t\nq Q0 b 1 1.0 t\nq Q0 c 3 9.0 t\n")
    assert list(read_run(tmp_path / "r.trec")["q"]) == ["c", "b", "a"]  # by score, equal ones by rank
    assert list(read_run(tmp_path / "r.trec", top_k=1)["q"]) == ["c"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q Q0 a 1 2.0", "expected 6 columns"),
        ("q Q0 a one 2.0 t", "must be numbers"),
        ("q Q0 a 1 nan t", "not finite"),
        ("q Q0 z 2 1 t", "'z' comes twice"),
    ],
)
def test_a_malformed_run_line_is_named(tmp_path, line, reason):
    (tmp_path / "r.trec").write_text(f"q Q0 z 1 1 t\n{line}\n")
    with pytest.raises(ValueError, match=rf"r.trec:2: .*{reason}"):
        read_run(tmp_path / "r.trec")


def test_ids_with_white_space_cannot_go_into_trec_files(tmp_path):
    with pytest.raises(ValueError, match="white space: 'a b'"):
        write_run(tmp_path / "r.trec", {"q": {"a b": 1.0}})


def test_topics_and_qrels_of_trec(tmp_path):
    (tmp_path / "t").write_text("<top>\n<num> Number: 301\n<title> International\nCrime\n<desc> x\n</top>\n")
    assert read_topics(tmp_path / "t") == {"301": Query("301", "International Crime")}
    (tmp_path / "t").write_text("<top>\n<num> Number: 301\n</top>\n")
    with pytest.raises(ValueError, match=r"t:\d+: a <top> record needs <num> and <title>"):
        read_topics(tmp_path / "t")
    (tmp_path / "q").write_text("301 0 d 2\n301 0 e -1\n")
    assert read_qrels(tmp_path / "q") == {"301": {"d": 2, "e": 0}}
    (tmp_path / "q").write_text("301 0 d 2.0\n301 0 d 2\n301 0 d 1\n")
    with pytest.raises(ValueError, match=r"q:3: query '301' and document 'd' are judged twice, differently"):
        read_qrels(tmp_path / "q")


def test_trec_flattens_tabs_and_line_ends(tmp_path):
    odd = Collection(
        "odd", {"d": Document("d", "a\tb\nc", "t\r\nu")}, {"q": Query("q", "x\ny")}, {"q": {"d": 1}}, "test"
    )
    convert(odd, tmp_path / "odd", "trec")
    loaded = load_collection(tmp_path / "odd")
    assert loaded.documents["d"] == Document("d", "a b c", "t u")
    assert loaded.queries["q"].text == "x y"


def test_convert_overwrites_nothing(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ValueError, match="not an empty folder"):
        convert(SMALL, tmp_path / "full", "beir")
    with pytest.raises(ValueError, match="jsonl needs a file name"):
        convert(SMALL, tmp_path, "jsonl")
    with pytest.raises(ValueError, match="expected one of beir, trec, jsonl"):
        convert(SMALL, tmp_path / "x", "csv")


def test_stats():
    stats = SMALL.stats()
    assert (stats.documents, stats.queries, stats.judgments, stats.relevant) == (3, 2, 3, 2)
    assert stats.relevance_levels == (0, 1, 2)
    assert stats.empty_documents == 1


def test_ir_datasets_judgments_follow_the_same_rules(monkeypatch, caplog):
    judgments = [SimpleNamespace(query_id=q, doc_id="d1", relevance=1) for q in ("q1", "q9", "q1")]
    dataset = SimpleNamespace(
        has_docs=lambda: True,
        has_queries=lambda: True,
        has_qrels=lambda: True,
        has_scoreddocs=lambda: False,
        docs_iter=lambda: [SimpleNamespace(doc_id="d1", text="a", title=None)],
        queries_iter=lambda: [SimpleNamespace(query_id="q1", text="q")],
        qrels_iter=lambda: judgments,
    )
    monkeypatch.setitem(sys.modules, "ir_datasets", SimpleNamespace(load=lambda _: dataset))
    assert load_collection("irds:x").qrels == {"q1": {"d1": 1}}
    assert "left out 1 judgment of 1 query that is missing from its queries, first 'q9'" in caplog.text
    judgments[2].relevance = 2
    with pytest.raises(ValueError, match="data: x: query 'q1' and document 'd1' are judged twice, differently"):
        load_collection("irds:x")
