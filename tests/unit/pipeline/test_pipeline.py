"""Training from Python: what runs refuse, flags made from fields, the same losses as by the command line."""

from __future__ import annotations

import dataclasses
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import prorank
from prorank import PromptTemplate, Reranker, TrainRun, train
from prorank.cli.main import build_parser, main
from prorank.config import attribute_docs
from prorank.data.convert import convert
from prorank.model.loading import LoadOptions
from prorank.pipeline.datasets import DatasetSpec
from prorank.pipeline.refine import RefineRun, refine
from prorank.pipeline.train import Block
from prorank.pipeline.warmup import WarmupRun, warmup
from prorank.prompt.encoder import DEFAULT_MAX_LENGTH
from prorank.training.refine.config import RefineConfig
from prorank.training.warmup.config import WarmupConfig
from testkit.warmup import collection, make_base

REPO = Path(__file__).resolve().parents[3]
SHORT = {
    "steps": 2, "queries_per_step": 2, "held_out_queries": 2, "eval_every": 2, "document_tokens": 12,
    "query_tokens": 12, "lora_rank": 4, "precision": "float32",
}  # fmt: skip
WARMUP = WarmupConfig(**SHORT)
REFINE = RefineConfig(**SHORT, list_size=4, hard_negatives=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[str, str]:
    """(base, BEIR collection)."""
    root = tmp_path_factory.mktemp("pipeline")
    convert(collection(), root / "data", "beir")
    return str(make_base(root / "tiny")), str(root / "data")


def as_flags(section, config):
    """All settings as the command line spells them."""
    pairs = ((name, value) for name, value in dataclasses.asdict(config).items() if value is not None)
    words = ((name, json.dumps(list(v)) if isinstance(v, tuple) else str(v)) for name, v in pairs)
    return [word for name, text in words for word in (f"--{section}.{name}", text)]


def losses(folder):
    """(step, values) of every line of the log but speeds."""
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("_per_second")} for line in lines]


def test_python_and_the_command_line_train_alike(folders, tmp_path):
    base, data = folders
    run = TrainRun(
        data=data, out=str(tmp_path / "python"), model=base, test_top_k=5, eval_top_k=5, device="cpu", threads=1,
        warmup=WARMUP, refine=REFINE,
    )  # fmt: skip
    trained = train(run)
    words = ["train", "--data", data, "--model", base, "--out", str(tmp_path / "shell"), "--test-top-k", "5"]
    words += ["--eval-top-k", "5", "--device", "cpu", "--threads", "1"]
    assert main([*words, *as_flags("warmup", WARMUP), *as_flags("refine", REFINE)]) == 0
    for stage in ("warmup", "refine"):
        found = losses(tmp_path / "python" / stage)
        assert len(found) >= 2
        assert found == losses(tmp_path / "shell" / stage)
    said = (tmp_path / "shell" / "report.md").read_text()
    assert trained.report == said.replace(str(tmp_path / "shell"), str(tmp_path / "python"))
    assert [row.name for row in trained.evaluations[0].rows] == ["bm25", "base", "warmed-up", "refined"]
    assert len(Reranker.from_pretrained(trained.model, device="cpu").rank("apple", ["an apple", "a bear"])) == 2


def test_each_stage_alone_returns_what_it_wrote(folders, tmp_path):
    base, data = folders
    warmed_up = warmup(
        WarmupRun(
            data=Path(data), out=tmp_path / "warmup", model=Path(base), device="cpu", analysis_pairs=0, warmup=WARMUP
        )
    )
    assert warmed_up.record == json.loads((tmp_path / "warmup" / "records.jsonl").read_text())
    assert warmed_up.report == tmp_path / "warmup" / "report.html"
    assert {change.measure: round(change.after, 4) for change in warmed_up.changes} == warmed_up.record["after"]
    refined = refine(
        RefineRun(data=Path(data), out=tmp_path / "refine", model=warmed_up.model, device="cpu", refine=REFINE)
    )
    assert refined.record["model"] == str(warmed_up.model)
    assert refined.first_stage == refined.record["first_stage"]
    assert (refined.model / "prorank.json").is_file()


def test_the_base_is_tested_under_the_template_that_was_trained(folders, tmp_path):
    """A base without a chat template was trained with --template, and then could not be tested."""
    base, data = folders
    plain = make_base(tmp_path / "plain")
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((plain / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(settings))
    template = Reranker.from_pretrained(base, device="cpu").encoder.template
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(replace(template, name="mine").to_dict()))
    words = ["train", "--data", data, "--model", str(plain), "--template", str(mine), "--out", str(tmp_path / "run")]
    words += ["--test-top-k", "3", "--test-queries", "2", "--eval-top-k", "3", "--device", "cpu", "--threads", "1"]
    quick = [replace(config, steps=1, eval_every=1) for config in (WARMUP, REFINE)]
    assert main([*words, *as_flags("warmup", quick[0]), *as_flags("refine", quick[1])]) == 0
    (record,) = (tmp_path / "run").glob("test-*/record.jsonl")
    systems = json.loads(record.read_text())["systems"]
    assert [one["description"]["template"] for one in systems[1:]] == ["mine"] * 3


def test_example_trains_in_five_lines(folders, tmp_path, monkeypatch, capsys):
    base, data = folders
    lines = (REPO / "examples" / "train.py").read_text().rpartition('"""')[2].splitlines()
    assert len([line for line in lines if line.strip()]) <= 5
    small = TrainRun(data="", out="x", model=base, device="cpu", threads=1, test_top_k=3, eval_top_k=3, test_queries=2)

    def tiny_run(data, out):
        return replace(small, data=data, out=out, warmup=replace(WARMUP, steps=1), refine=replace(REFINE, steps=1))

    monkeypatch.setattr("prorank.pipeline.train.TrainRun", tiny_run)
    monkeypatch.setattr(sys, "argv", ["train.py", data, str(tmp_path / "run")])
    runpy.run_path(str(REPO / "examples" / "train.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "# Training report" in out
    assert "RankResult(" in out


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TrainRun(data=()), "data"),
        (lambda: TrainRun(data="x", out=""), "out"),
        (lambda: TrainRun(data="x", test_share=1.0), "test_share"),
        (lambda: TrainRun(data="x", test_stages=("base",)), "test_stages"),
        (lambda: TrainRun(data="x", test_queries=0), "test_queries"),
        (lambda: TrainRun(data="x", threads=0), "threads"),
        (lambda: TrainRun(data="x", test="path"), "test"),
        (lambda: RefineRun(data="x", out="y", exclude="path"), "exclude"),
        (lambda: TrainRun(data="x", max_length=1.5), "max_length"),
        (lambda: RefineRun(data="x", out="y", eval_top_k=0), "eval_top_k"),
        (lambda: WarmupRun(data="x", out="y", analysis_pairs=1), "analysis_pairs"),
        (lambda: WarmupRun(data="", out="y"), "data"),
        (lambda: Block("b", remine=-1), "remine"),
        (lambda: Block("b", checkpoint="first"), "checkpoint"),
    ],
)
def test_a_run_names_the_field_that_does_not_fit(make, field):
    with pytest.raises(ValueError, match=rf"^{field}: "):
        make()


def test_errors_name_the_field_in_python_and_the_flag_on_the_command_line(folders, tmp_path, capsys):
    base, data = folders
    with pytest.raises(ValueError, match=r"^refine\.losses: kl "):
        refine(RefineRun(data=data, out=str(tmp_path), model=base, refine=replace(REFINE, losses=("kl=1",))))
    words = ["refine", "--data", data, "--out", str(tmp_path), "--model", base, *as_flags("refine", REFINE)]
    assert main([*words, "--refine.losses", "[kl=1]"]) == 2
    assert "error: --refine.losses: kl " in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"^test_share: "):
        train(TrainRun(data=data, out=str(tmp_path), model=base, test_share=0.999))
    assert main(["train", "--data", data, "--out", str(tmp_path), "--model", base, "--test-share", "0.999"]) == 2
    assert "error: --test-share: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"document_tokens": 100_000}, "document_tokens"),
        ({"held_out": 0.9999}, "held_out"),
        ({"losses": ("kl=1",)}, "losses"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_named_with_their_section(folders, tmp_path, capsys, changes, field):
    base, data = folders
    bad = replace(REFINE, **changes)
    with pytest.raises(ValueError, match=rf"^refine\.{field}: "):
        refine(RefineRun(data=data, out=str(tmp_path / "run"), model=base, device="cpu", refine=bad))
    words = ["refine", "--data", data, "--out", str(tmp_path / "run"), "--model", base, "--device", "cpu"]
    assert main([*words, *as_flags("refine", bad)]) == 2
    assert f"error: --refine.{field}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('max_length = "long"', "--max-length: got 'long'; expected a whole number"),
        ('test = "path"', "--test: got 'path'; expected a list"),
        ("model = 3", "--model: got 3; expected a text"),
        ('test_stages = ["best"]', "--test-stages: got ['best']; expected one of base, warmed-up, refined"),
        ("threads = 0", "--threads: expected a whole number of at least 1, got 0"),
        ("blocks = [{remine = -1}]", "[[blocks]] number 1: remine: expected a number of queries, got -1"),
    ],
)
def test_a_value_that_does_not_fit_in_a_file_is_named(folders, tmp_path, capsys, line, words):
    _, data = folders
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'data = "{data}"\nout = "{tmp_path / "run"}"\n{line}\n')
    assert main(["train", "--config", str(recipe)]) == 2
    assert words in capsys.readouterr().err


def test_fields_of_a_run_hold_for_data_by_path_and_a_spec_says_its_own():
    specs = TrainRun(data=("a", DatasetSpec("b", weight=2.0)), split="dev", teacher="bm25").specs
    assert specs == [DatasetSpec("a", split="dev", teacher="bm25"), DatasetSpec("b", weight=2.0)]


@pytest.mark.parametrize(
    ("command", "cls", "not_flags"),
    [
        ("train", TrainRun, {"warmup", "refine", "blocks"}),
        ("warmup", WarmupRun, {"warmup"}),
        ("refine", RefineRun, {"refine"}),
        ("rank", LoadOptions, {"local_files_only", "share_prefix", "processes", "devices"}),
    ],
)
def test_every_field_is_a_flag_with_the_same_words(command, cls, not_flags):
    helps = {action.dest: action.help for action in build_parser(command)._actions}
    docs = attribute_docs(cls)
    for field in dataclasses.fields(cls):
        assert docs[field.name], field.name
        if field.name not in not_flags:
            assert docs[field.name].rstrip(".")[1:] in helps[field.name].replace("%%", "%")


def test_from_pretrained_takes_what_load_options_has():
    import inspect

    parameters = list(inspect.signature(Reranker.from_pretrained).parameters.values())
    assert [p.name for p in parameters] == [field.name for field in dataclasses.fields(LoadOptions)]
    assert [p.default for p in parameters] == [field.default for field in dataclasses.fields(LoadOptions)]
    for text in attribute_docs(LoadOptions).values():
        assert text.split()[-1] in Reranker.from_pretrained.__doc__
    assert f"else {DEFAULT_MAX_LENGTH})" in attribute_docs(LoadOptions)["max_length"]
    with pytest.raises(TypeError, match="devise"):
        Reranker.from_pretrained(devise="cpu")
    with pytest.raises(TypeError, match="positional"):
        Reranker.from_pretrained("x", "y")


def test_public_names():
    assert len(prorank.__all__) <= 8
    assert all(getattr(prorank, name) is not None for name in prorank.__all__)
    assert PromptTemplate.__module__ == "prorank.prompt.template"


@pytest.mark.parametrize("name", ["prorank-smollm2-135m", "prorank-smollm2-135m-warmup"])
def test_built_in_rerankers_are_found(name):
    from prorank.model.checkpoint import built_in_rerankers

    assert name in built_in_rerankers()
