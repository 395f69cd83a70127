"""mine, teach, refine and train as a user runs them, on a tiny base and a small collection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prorank.cli.main import main
from prorank.data.convert import convert
from prorank.data.load import load_collection
from prorank.data.trec import write_run
from testkit.refine import candidates
from testkit.warmup import collection, make_base

QUICK = [
    "--warmup.steps", "2", "--warmup.queries_per_step", "2", "--warmup.held_out_queries", "2",
    "--warmup.eval_every", "2",
    "--warmup.document_tokens", "12", "--warmup.query_tokens", "12", "--warmup.lora_rank", "4",
    "--warmup.precision", "float32", "--refine.steps", "2", "--refine.queries_per_step", "2", "--refine.list_size", "4",
    "--refine.hard_negatives", "2", "--refine.held_out_queries", "2", "--refine.eval_every", "2",
    "--refine.document_tokens", "12", "--refine.query_tokens", "12", "--refine.precision", "float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(base, BEIR collection)."""
    root = tmp_path_factory.mktemp("train")
    convert(collection(), root / "data", "beir")
    return make_base(root / "tiny"), root / "data"


def test_train_ends_with_an_honest_report_and_runs_each_step_once(folders, tmp_path, capsys):
    base, data = folders
    command = ["train", "--data", str(data), "--model", str(base), "--out", str(tmp_path / "run"), *QUICK]
    command += ["--test-top-k", "10", "--eval-top-k", "5", "--device", "cpu", "--threads", "1"]
    assert main(command) == 0
    report = (tmp_path / "run" / "report.md").read_text()
    for name in ("bm25", "base", "warmed-up", "refined"):
        assert f"| {name} |" in report
    assert "raining" in report.splitlines()[-3]
    record = json.loads((tmp_path / "run" / "refine" / "records.jsonl").read_text())
    assert record["kind"] == "refine"
    assert record["steps"] == 2
    assert (tmp_path / "run" / "refine" / "report.html").read_text().count("<svg") >= 3
    capsys.readouterr()
    written = (tmp_path / "run" / "refine" / "last" / "adapter_model.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert capsys.readouterr().err.count("done before") == 2
    assert (tmp_path / "run" / "refine" / "last" / "adapter_model.safetensors").stat().st_mtime_ns == written
    assert main([*command, "--refine.learning_rate", "0.5"]) == 2
    assert "--refine.learning_rate" in capsys.readouterr().err
    assert main([*command, "--test-stages", "refined"]) == 0
    alone = (tmp_path / "run" / "report.md").read_text()
    assert "| base |" not in alone
    assert "| warmed-up |" not in alone
    score = {line.split("|")[1].strip(): line.split("|")[2] for line in report.splitlines() if line.startswith("| ")}
    for name in ("bm25", "refined"):
        assert f"| {name} |{score[name]}|" in alone


def test_test_queries_are_never_trained_on():
    from prorank.pipeline.datasets import DatasetSpec, Prepared
    from prorank.pipeline.splits import split_off

    (kept,), (test,) = split_off([Prepared(DatasetSpec("toy"), collection(), None, None)], 0.3)
    assert test.queries
    assert not set(test.queries) & set(kept.collection.queries)
    assert not set(test.queries) & set(kept.collection.qrels)
    assert {**kept.collection.queries, **test.queries} == collection().queries


def test_a_test_set_has_the_instruction_of_the_data_from_its_folder(folders, tmp_path):
    from prorank.pipeline.datasets import DatasetSpec, load_tests

    _, data = folders
    convert(collection(), tmp_path / "other", "beir")
    specs = [DatasetSpec(str(data), instruction="one"), DatasetSpec(str(tmp_path / "more"), instruction="two")]
    around = f"{tmp_path}/../{data.parent.name}/{data.name}"
    for path in (str(data), around, f"{data}:test"):
        assert [test.instruction for test in load_tests([path], specs, "common")] == ["one"]
    assert [test.instruction for test in load_tests([str(tmp_path / "other")], specs, "common")] == ["common"]


def test_curriculum_of_blocks(folders, tmp_path):
    base, data = folders
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'model = "{base}"\nout = "{tmp_path / "run"}"\nteacher = "bm25"\ntest_top_k = 5\ndevice = "cpu"\n'
        f'[[datasets]]\npath = "{data}"\ncap = 1\ninstruction = "About one colour."\n'
        '[[blocks]]\nname = "distil"\nlosses = ["kl=1"]\nlong_documents = "excerpt"\n'
        '[[blocks]]\nname = "labels"\nremine = 3\nlosses = ["softmax=1"]\n'
    )
    assert main(["train", "--config", str(recipe), *QUICK]) == 0
    first, second = tmp_path / "run" / "refine-1-distil", tmp_path / "run" / "refine-2-labels"
    assert json.loads((first / "config.json").read_text())["refine"]["losses"] == ["kl=1"]
    record = json.loads((second / "records.jsonl").read_text())
    assert record["model"] == str(first / "best")
    assert record["datasets"][0]["lists"] == 3, "one list for each query that was mined anew"
    manifests = [json.loads((folder / "last" / "prorank.json").read_text()) for folder in (first, second)]
    assert [found["long_documents"] for found in manifests] == ["excerpt", "excerpt"], "later blocks read as the first"
    assert list((tmp_path / "run" / "mined-2").rglob("*.trec")), "the model's order is kept"
    (tested,) = (tmp_path / "run").glob("test-*/record.jsonl")
    assert '"instruction": "About one colour."' in tested.read_text(), "tested as it was trained"
    assert 'Instruction: "About one colour."' in (tmp_path / "run" / "report.md").read_text()
    recipe.write_text(recipe.read_text().replace("remine = 3", "remine = -3"))
    assert main(["train", "--config", str(recipe), *QUICK]) == 2


def test_teach_then_refine_from_its_scores(folders, tmp_path, capsys):
    base, data = folders
    lists = tmp_path / "lists.jsonl"
    teach = ["teach", "--data", str(data), "--teacher", "bm25", "--teacher", str(base), "--top-k", "6"]
    assert main([*teach, "--out", str(lists), "--dtype", "float32"]) == 0
    taught = load_collection(lists)
    assert taught.candidates
    assert all(len(listed) <= 6 for listed in taught.candidates.values())
    quick = QUICK[QUICK.index("--refine.steps") :]
    refine = ["refine", "--model", str(base), "--data", str(lists), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*refine, "--teacher", "given", "--refine.losses", "[kl=1, margin_mse=0.1]", *quick]) == 0
    assert json.loads((tmp_path / "run" / "records.jsonl").read_text())["steps"] == 2
    capsys.readouterr()
    assert main([*refine[:-3], str(tmp_path / "other"), "--refine.losses", "[kl=1]", *quick]) == 2
    assert "give --teacher" in capsys.readouterr().err


def test_mine_with_a_model_filters_by_its_margins(folders, tmp_path):
    base, data = folders
    write_run(tmp_path / "first.trec", candidates(), "first")
    mine = ["mine", "--data", str(data), "--model", str(base), "--first-stage", str(tmp_path / "first.trec")]
    mine += ["--top-k", "8", "--dtype", "float32"]
    assert main([*mine, "--out", str(tmp_path / "all.jsonl")]) == 0
    assert main([*mine, "--absolute-margin", "0.0", "--out", str(tmp_path / "some.jsonl")]) == 0
    every, some = load_collection(tmp_path / "all.jsonl"), load_collection(tmp_path / "some.jsonl")
    for query_id, judged in some.qrels.items():
        scores = some.candidates[query_id]
        best = max(scores[d] for d, r in judged.items() if r)
        assert all(scores[d] <= best for d, r in judged.items() if not r)
    count = [sum(r == 0 for judged in c.qrels.values() for r in judged.values()) for c in (every, some)]
    assert 0 < count[1] < count[0]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train"], "--data is missing"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["train", "--data", "DATA", "--test-share", "2"], "--test-share"),
        (["train", "--data", "DATA", "--test-stages", "base"], "--test-stages"),
        (["train", "--data", "DATA", "--refine.losses", "[hinge=1]"], "--refine.losses"),
        (["train", "--data", "DATA", "--refine.steps", "0"], "--refine.steps"),
        (["refine", "--data", "DATA"], "--out is missing"),
        (["refine", "--data", "DATA", "--out", "/dev/null/x"], "--out"),
        (["refine", "--data", "DATA", "--out", "OUT", "--refine.document_tokens", "4000"], "document_tokens"),
        (["refine", "--data", "DATA", "--out", "OUT", "--exclude", "nowhere"], "nowhere"),
        (["refine", "--data", "EMPTY", "--out", "OUT"], "relevant document"),
        (["teach", "--data", "DATA", "--teacher", "bm25", "--out", "x.csv"], "--out"),
        (["teach", "--data", "DATA", "--teacher", "run:x", "--out", "x.jsonl"], "run"),
        (["mine", "--data", "DATA", "--out", "x.csv"], "--out"),
    ],
)
def test_bad_input(folders, tmp_path, capsys, command, words):
    base, data = folders
    empty = tmp_path / "empty.jsonl"
    rows = [{"query": "apple", "documents": [f"bear {i}" for i in range(12)], "relevance": [0] * 12}]
    empty.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"DATA": str(data), "OUT": str(tmp_path / "out"), "EMPTY": str(empty)}
    words_of = [names.get(word, word) for word in command]
    if command[0] in ("train", "refine"):
        words_of += ["--model", str(base)]
    if "--out" not in command and "is missing" not in words:
        words_of += ["--out", str(tmp_path / "out")]
    assert main(words_of) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
