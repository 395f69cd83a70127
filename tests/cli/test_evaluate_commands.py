"""evaluate, compare, analyze and data from the command line, on a tiny model and a tiny collection."""

from __future__ import annotations

import json

import numpy as np
import pytest

from prorank.cli.main import main
from prorank.data import read_run
from prorank.data.collection import Collection
from prorank.data.convert import convert
from prorank.types import Document, Query

pytest.importorskip("bm25s")
pytest.importorskip("ir_measures")


@pytest.fixture
def folder(tmp_path):
    collection = Collection(
        "toy",
        {f"d{i}": Document(f"d{i}", f"word{i} and word{i % 3} stand here", f"title {i}") for i in range(12)},
        {f"q{i}": Query(f"q{i}", f"where does word{i} stand") for i in range(4)},
        {f"q{i}": {f"d{i}": 2, f"d{i + 3}": 1} for i in range(4)},
        "test",
    )
    convert(collection, tmp_path / "toy", "beir")
    return tmp_path / "toy"


def test_evaluate_then_compare(folder, tiny_llama_dir, tmp_path, capsys):
    common = ["evaluate", "--data", str(folder), "--model", str(tiny_llama_dir), "--dtype", "float32", "--threads", "1"]
    assert main([*common, "--top-k", "5", "--out", str(tmp_path / "a"), "--measures", "nDCG@10", "AP"]) == 0
    assert "report.html" in capsys.readouterr().out
    run = read_run(tmp_path / "a/llama.trec")
    assert [len(documents) for documents in run.values()] == [5] * 4
    (record,) = map(json.loads, (tmp_path / "a/record.jsonl").read_text().splitlines())
    assert [system["name"] for system in record["systems"]] == ["bm25", "llama"]
    assert record["systems"][1]["description"]["weights_sha256"]
    assert record["systems"][1]["tokens"] > 100
    assert str(tmp_path) not in (tmp_path / "a/record.jsonl").read_text()  # no machine paths in records
    before = (tmp_path / "a/llama.trec").read_bytes()
    first_stage = str(tmp_path / "a/bm25.trec")
    second = [
        *common,
        "--run",
        first_stage,
        "--baseline",
        f"run:{tmp_path / 'a/llama.trec'}",
        "--out",
        str(tmp_path / "b"),
    ]
    assert main(second) == 0
    assert (tmp_path / "b/llama.trec").read_bytes() == before
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 10  # 2 + 3 systems, every pair
    same = next(row for row in rows if (row["a"], row["b"]) == ("b:llama", "a:llama"))
    assert same["p"] == 1.0
    assert main(["compare", str(tmp_path / "a"), "--measure", "AP", "--format", "table"]) == 0
    assert "llama" in capsys.readouterr().out


def test_a_changed_setting_in_the_same_folder_is_refused_and_restart_allows_it(
    folder, tiny_llama_dir, tmp_path, capsys
):
    common = ["evaluate", "--data", str(folder), "--model", str(tiny_llama_dir), "--out", str(tmp_path / "a")]
    assert main([*common, "--top-k", "2", "--max-queries", "2"]) == 0
    assert main([*common, "--top-k", "3", "--max-queries", "2"]) == 2
    assert "start over with --restart" in capsys.readouterr().err
    assert main([*common, "--top-k", "3", "--max-queries", "2", "--restart"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "nowhere"], "'nowhere' is not a file, a folder"),
        (["--split", "dev"], "'dev' is not among them"),
        (["--measures", "quality"], "'quality' is not a measure"),
        (["--first-stage", "bm52"], "or one of bm25"),
        (["--run", "missing.trec"], "--run: there is no file missing.trec"),
        (["--baseline", "gpt"], "is none of bi-encoder"),
        (["--baseline", "mixture:bm25+0*splade-tiny"], "baseline: 'mixture:bm25+0*splade-tiny': the weight '0'"),
        (["--baseline", "mixture:bm25+nothing"], "'nothing' is no encoder, first stage or run file"),
        (["--baseline", "cohere:m"], "set the environment variable COHERE_API_KEY"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(folder, tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.delenv("COHERE_API_KEY", raising=False)
    words = ["evaluate", "--data", str(folder), "--out", str(tmp_path / "out"), "--baseline", "bi-encoder"]
    if "--baseline" in flags:
        words = words[:-2]
    assert main([*words, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("prorank evaluate: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_mixture_as_baseline_is_the_mean_of_normalised_scores(folder, tmp_path, capsys):
    words = ["evaluate", "--data", str(folder), "--top-k", "5", "--out", str(tmp_path / "out")]
    length = tmp_path / "length.trec"
    listed = {f"q{i}": [f"d{j}" for j in range(12)] for i in range(4)}
    length.write_text("".join(f"{q} Q0 {d} 0 {-(int(d[1:]) ** 2)} length\n" for q, ds in listed.items() for d in ds))
    assert main([*words, "--baseline", f"mixture:bm25+2*{length}", "--baseline", f"run:{length}"]) == 0
    assert "mixture" not in capsys.readouterr().err
    bm25 = read_run(tmp_path / "out/bm25.trec")
    (mixed,) = (tmp_path / "out").glob("bm25+2-length.trec")
    for query_id, scores in read_run(mixed).items():
        parts = np.array([[bm25[query_id][d] for d in scores], [-(int(d[1:]) ** 2) for d in scores]], dtype=float)
        normal = (parts - parts.mean(axis=1, keepdims=True)) / parts.std(axis=1, keepdims=True)
        np.testing.assert_allclose(list(scores.values()), (normal[0] + 2 * normal[1]) / 3, atol=1e-5)


def test_analyze(folder, tiny_llama_dir, tmp_path, capsys):
    words = ["analyze", "--data", str(folder), "--model", str(tiny_llama_dir), "--model", str(tiny_llama_dir)]
    words += ["--pairs", "4", "--queries", "2", "--candidates", "3", "--threads", "1", "--dtype", "float32"]
    assert main([*words, "--out", str(tmp_path / "out"), "--record", str(tmp_path / "all.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "llama answers in form" in out
    assert "llama-2 answers in form" in out
    records = [json.loads(line) for line in (tmp_path / "out/record.jsonl").read_text().splitlines()]
    assert [record["kind"] for record in records] == ["analyze", "analyze"]
    assert records[0]["understanding"] == records[1]["understanding"]
    assert (tmp_path / "all.jsonl").read_text().count("\n") == 2


def test_labels_a_record_file_and_the_default_folder(folder, tiny_llama_dir, tmp_path, capsys, monkeypatch):
    from prorank import progress

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    words = ["evaluate", "--data", str(folder), "--model", f"one={tiny_llama_dir}", "--model", str(tiny_llama_dir)]
    assert main([*words, "--dtype", "float32", "--threads", "1", "--record", "all.jsonl", "--top-k", "3"]) == 0
    found = capsys.readouterr()
    assert "results/toy-test/report.html" in found.out
    assert "one: 4 of 4 queries" in found.err  # no terminal: lines of progress
    (record,) = map(json.loads, (tmp_path / "all.jsonl").read_text().splitlines())
    assert [system["name"] for system in record["systems"]] == ["bm25", "one", "llama"]
    assert record == json.loads((tmp_path / "results/toy-test/record.jsonl").read_text())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("warm=runs/best", ("warm", "runs/best")),
        ("runs/a=b", (None, "runs/a=b")),
        ("here=there", (None, "here=there")),
        (None, (None, None)),
    ],
)
def test_labels_are_told_from_paths(tmp_path, monkeypatch, value, expected):
    from prorank.cli.evaluate import named_model

    monkeypatch.chdir(tmp_path)
    (tmp_path / "here=there").mkdir()
    assert named_model(value) == expected


def test_data_stats(folder, capsys):
    assert main(["data", "stats", str(folder), "--format", "jsonl"]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["documents"], row["queries"], row["split"]) == (12, 4, "test")
    assert main(["data", "stats", "stdlib", "--format", "table"]) == 0
    assert "stdlib-3" in capsys.readouterr().out


def test_data_fuse(tmp_path, capsys):
    """By hand: a = 1/61 + 1/63, b = 1/62 + 1/61, c = 1/62 (second list only), d = 1/63 (first list only)."""
    one, other, out = (tmp_path / name for name in ("one.trec", "other.trec", "fused.trec"))
    one.write_text("q Q0 a 1 9 x\nq Q0 b 2 8 x\nq Q0 d 3 7 x\n")
    other.write_text("q Q0 b 1 0.3 y\nq Q0 c 2 0.2 y\nq Q0 a 3 0.1 y\n")
    assert main(["data", "fuse", str(one), str(other), "--out", str(out)]) == 0
    rows = [line.split() for line in out.read_text().splitlines()]
    assert [row[2] for row in rows] == ["b", "a", "c", "d"]
    assert [float(row[4]) for row in rows] == pytest.approx([1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62, 1 / 63])
    assert main(["data", "fuse", str(one), str(other), "--top-k", "2", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 2
    assert main(["data", "fuse", str(one), "--out", str(out)]) == 2
    assert "at least two runs" in capsys.readouterr().err
    assert len(out.read_text().splitlines()) == 2  # what was there is kept


def test_data_convert_and_mine(folder, tmp_path, capsys):
    assert main(["data", "convert", str(folder), "--to", "trec", "--out", str(tmp_path / "t")]) == 0
    assert main(["data", "convert", str(tmp_path / "t"), "--to", "jsonl", "--out", str(tmp_path / "t.jsonl")]) == 0
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 4
    mine = ["data", "mine", str(folder), "--out"]
    assert main([*mine, str(tmp_path / "c.trec"), "--top-k", "4"]) == 0
    assert {len(documents) for documents in read_run(tmp_path / "c.trec").values()} == {4}
    assert main([*mine, str(tmp_path / "l.jsonl"), "--negatives", "3"]) == 0
    assert "4 queries, 12 negatives" in capsys.readouterr().err
    lists = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert [d["relevance"] for d in lists[0]["documents"]] == [2, 1, 0, 0, 0]
    assert main([*mine, str(tmp_path / "l.csv")]) == 2
    assert "must end in .trec" in capsys.readouterr().err
    (tmp_path / "toy/corpus.jsonl").write_text("{")
    assert main([*mine, str(tmp_path / "x.trec")]) == 2
    assert "corpus.jsonl:1: not JSON" in capsys.readouterr().err
