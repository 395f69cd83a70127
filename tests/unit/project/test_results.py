"""benchmarks/runs/results.py and stages.py end to end on tiny random models and collections, and their arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.runs import results, stages
from benchmarks.tables import writer as tables

from prorank.data.convert import convert
from prorank.data.trec import write_run
from prorank.evaluate.systems import Scored
from prorank.pipeline.splits import shortened
from testkit.refine import candidates
from testkit.warmup import collection, make_base

pytest.importorskip("bm25s")
pytest.importorskip("ir_measures")


class Overlap:
    """Stands in for MiniLM: how many letters of the query the document has."""

    name = "minilm"

    def describe(self):
        return {"kind": "bi-encoder", "model": "overlap"}

    def score(self, query, documents):
        return Scored(np.array([sum(text.count(letter) for letter in query) for text in documents], np.float32), 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two of the three collections: one for BM25, one with a given list."""
    root = tmp_path_factory.mktemp("shared")
    convert(replace(collection(queries=12), split="test"), root / "nfcorpus", "beir")
    few = collection(queries=8)
    graded = {query_id: dict.fromkeys(judged, 2) for query_id, judged in few.qrels.items()}
    convert(replace(few, split="test", qrels=graded), root / "dl19", "beir")
    lists = {query_id: documents for query_id, documents in candidates().items() if int(query_id[1:]) < 8}
    (root / "dl19" / "runs").mkdir()
    write_run(root / "dl19" / "runs" / "bm25.test.trec", lists, "bm25")
    return root


@pytest.fixture
def command(data, tmp_path, tmp_path_factory, monkeypatch):
    """Flags that both scripts take, with tiny models and the records in a folder of the test's own."""
    folder = tmp_path_factory.getbasetemp() / "tiny-results"
    base, warm = make_base(folder / "base"), make_base(folder / "warm", seed=1)
    models = {"base": str(base), "warmup": str(warm), "refined": "prorank-not-shipped"}
    monkeypatch.setattr(results, "MODELS", models)
    monkeypatch.setattr(stages, "MODELS", models)
    monkeypatch.setattr(results, "minilm", lambda _: Overlap())
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return ["--data", str(data), "--device", "cpu", "--threads", "1"]


def test_results_are_recorded_repeated_and_checked(command, tmp_path, capsys):
    out, file = tmp_path / "out", tmp_path / "results.jsonl"
    first = [*command, "--out", str(out), "--queries", "6", "--max-length", "256"]
    assert results.main([*first, "--append", str(file)]) == 0
    shown = capsys.readouterr()
    assert "prorank-not-shipped does not come with the package yet: refined is left out" in shown.err
    assert "scifact: there is no folder" in shown.err
    record = json.loads(file.read_text())
    assert record["settings"] == {
        "queries": 6, "max_length": 256, "dtype": "float32", "collections": ["nfcorpus", "dl19"],
        "systems": ["minilm", "fused", "base", "warmup"],
    }  # fmt: skip
    nfcorpus, dl19 = record["collections"]
    assert [s["name"] for s in nfcorpus["systems"]] == ["bm25", "minilm", "fused", "base", "warmup"]
    assert nfcorpus["dataset"]["queries"] == dl19["dataset"]["queries"] == 6
    assert nfcorpus["systems"][3]["description"]["max_length"] == 256
    assert set(dl19["systems"][3]["versus"]) == {"bm25", "minilm"}
    assert str(tmp_path) not in file.read_text()
    means = [part["systems"][4]["measures"]["nDCG@10"]["mean"] for part in record["collections"]]
    assert record["average"]["warmup"]["mean"] == pytest.approx(sum(means) / 2)
    values = dl19["per_query"]["values"]["warmup"]
    assert len(dl19["per_query"]["queries"]) == len(values) == 6
    assert sum(values) / 6 == pytest.approx(means[1], abs=1e-6)
    assert set(record["average"]["warmup"]["versus"]) == {"bm25", "minilm"}
    assert json.loads(shown.out.splitlines()[-1])["average"] == record["average"]

    again = [*command, "--out", str(tmp_path / "again"), "--check"]  # the settings are the record's
    assert results.main(again) == 0
    shown = capsys.readouterr().out
    assert "figures are those of the record of" in shown
    figures = results.figures(record)
    assert f"all {len(figures)} figures" in shown

    changed = json.loads(file.read_text())
    changed["collections"][1]["systems"][4]["measures"]["RR@10"]["low"] += 0.0002
    file.write_text(json.dumps(changed) + "\n")
    assert results.main(again) == 1
    shown = capsys.readouterr().out
    assert f"1 of {len(figures)} figures are not those" in shown
    assert "| dl19 warmup RR@10 |" in shown
    assert results.main([*again, "--queries", "5"]) == 2
    assert "no record with the settings" in capsys.readouterr().err


def test_a_finished_system_is_not_scored_again_unless_asked(command, tmp_path, monkeypatch):
    flags = [*command, "--out", str(tmp_path / "out"), "--collections", "dl19", "--systems", "minilm", "fused"]
    assert results.main(flags) == 0
    calls = []

    class Counted(Overlap):
        def score(self, query, documents):
            calls.append(query)
            return super().score(query, documents)

    monkeypatch.setattr(results, "minilm", lambda _: Counted())
    assert results.main(flags) == 0
    assert calls == []
    assert results.main([*flags, "--restart", "minilm"]) == 0
    assert len(calls) == 8


def test_no_collection_at_all_is_an_error(tmp_path, capsys):
    assert results.main(["--data", str(tmp_path), "--systems", "base"]) == 2
    assert "holds none of nfcorpus, scifact, dl19" in capsys.readouterr().err


def test_the_subset_is_the_one_that_train_tests_on():
    whole = collection(queries=40)
    for queries in (1, 7, 40):
        assert list(results.subset(whole, queries).queries) == list(shortened(whole, queries).queries)
    assert len(results.subset(whole, 0).queries) == 40


def test_the_average_weighs_collections_alike():
    """Means 0.5 and 0.75: 0.625. Six differences, all positive: 2 of 2^6 sign assignments are as extreme."""

    found = results.averages(
        [
            {"bm25": [0.3, 0.2], "refined": [0.4, 0.6]},
            {"bm25": [0.1, 0.2, 0.3, 0.4], "refined": [0.6, 0.7, 0.8, 0.9]},
        ]
    )
    assert found["refined"]["mean"] == pytest.approx(0.625)
    assert found["bm25"]["mean"] == pytest.approx(0.25)
    against = found["refined"]["versus"]["bm25"]
    assert against["mean"] == pytest.approx(0.375)
    assert against["p"] == pytest.approx(2 / 64)
    assert against["p_holm"] == against["p"]
    assert against["low"] == pytest.approx((0.1 + 0.5) / 2)  # the smaller collection gives 0.1 or 0.4, the other 0.5
    assert against["high"] == pytest.approx((0.4 + 0.5) / 2)


def test_stages_are_recorded_once(command, tmp_path, capsys, monkeypatch):
    file = tmp_path / "stages.jsonl"
    flags = [*command, "--pairs", "8", "--queries", "2", "--candidates", "3", "--max-length", "256"]
    flags += ["--out", str(tmp_path / "out.jsonl")]
    assert stages.main([*flags, "--append", str(file)]) == 0
    shown = capsys.readouterr().out
    records = [json.loads(line) for line in file.read_text().splitlines()]
    asked = [(name, stage) for stage in ("base", "warmup") for name in ("nfcorpus", "dl19")]
    assert [(r["dataset"]["name"], r["stage"]) for r in records] == asked
    assert all(r["prompts"] == 8 and 0 <= r["understanding"]["margin_auc"]["value"] <= 1 for r in records)
    assert records[0]["understanding"] != records[2]["understanding"]
    assert [r["sample"]["min_relevance"] for r in records[:2]] == [1, 2]
    assert "| nfcorpus | zero-shot base |" in shown
    monkeypatch.setattr("prorank.evaluate.analyze.analyze", None)  # calling it would be an error
    assert stages.main(flags) == 0
    assert capsys.readouterr().out == shown
