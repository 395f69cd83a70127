"""Every recipe of training is read as the commands read it; those for a GPU run on tiny models of their families."""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from prorank.cli import refine, train
from prorank.cli.main import main
from prorank.config import config_dict, read_config
from prorank.data.convert import convert
from prorank.model.built_in import BUILT_IN
from prorank.pipeline.train import BLOCK_KEYS
from prorank.types import Document, Query
from testkit.tiny_models import make_tiny
from testkit.warmup import collection, make_base

REPO = Path(__file__).resolve().parents[3]
RECIPES = sorted((REPO / "recipes" / "train").glob("*.toml"))
REFINE_RECIPES = sorted((REPO / "recipes" / "refine").glob("*.toml"))
FAMILIES = {
    "smollm2-135m": "llama",
    "qwen2.5-coder-0.5b": "qwen2",
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2",
    "Qwen/Qwen2.5-1.5B-Instruct": "qwen2",
    "Qwen/Qwen3-0.6B": "qwen3",
    "google/gemma-3-270m-it": "gemma3",
}
ON_GPU = [path for path in RECIPES if "on one GPU" in path.read_text("utf-8")]


def has(config, table):
    """Whether a built configuration holds what the recipe's table says."""
    values = config_dict(config)
    return all(values[name] == value for name, value in table.items() if name not in BLOCK_KEYS)


def test_there_are_recipes():
    assert {read_config(path)["model"] for path in ON_GPU} == set(FAMILIES) - set(BUILT_IN)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_train_recipe_is_complete_and_known(path):
    file = read_config(path)
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    run = train.read_run(parser.parse_args(["--config", str(path)]))
    assert run.model in FAMILIES
    assert run.out
    assert has(run.warmup, file["warmup"])
    assert [block.name for block in run.blocks] == [table["name"] for table in file.get("blocks", ())]
    assert has(run.refine, file["refine"])
    for block, table in zip(run.blocks, file.get("blocks", ()), strict=True):
        assert has(block.refine, {**file["refine"], **table})
        assert block.checkpoint == table.get("checkpoint", "best")
    assert [spec.path for spec in run.specs] == [table["path"] for table in file["datasets"]]
    measured = {Path(test).name.partition(":")[::2] for test in run.test}
    assert not measured & {(Path(spec.path).name, spec.split or "train") for spec in run.specs}


@pytest.mark.parametrize("path", REFINE_RECIPES, ids=lambda p: p.stem)
def test_refine_recipe_is_complete_and_known(path):
    parser = argparse.ArgumentParser()
    refine.add_arguments(parser)
    named = [table["path"] for table in read_config(path).get("datasets", ())]
    flags = [] if named else ["--data", "DATA"]
    run = refine.read_run(parser.parse_args(["--config", str(path), *flags]))
    assert run.out
    assert has(run.refine, read_config(path)["refine"])
    assert [spec.path for spec in run.specs] == (named or ["DATA"])
    assert named or "--data" in path.read_text("utf-8")  # else its data comes by flag, as its header shows


@pytest.mark.parametrize("path", ON_GPU, ids=lambda p: p.stem)
def test_gpu_recipe_learns_from_the_same_mixture(path):
    ours = read_config(REPO / "recipes" / "train" / "prorank-smollm2-135m.toml")
    assert read_config(path)["datasets"] == ours["datasets"]
    assert read_config(path)["test"] == ours["test"]


@pytest.mark.parametrize("path", ON_GPU, ids=lambda p: p.stem)
def test_header_holds_the_estimate(path):
    import estimate_training

    text = path.read_text("utf-8")
    header = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    assert estimate_training.estimate(tomllib.loads(text)).line() in header


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_parameters_are_counted_as_the_models_have_them(architecture, letters, tmp_path):
    """Of a tiny model: all but biases and norms, and LoRA's weights as peft makes them."""
    from estimate_training import Shape
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path, architecture, letters))
    shape = Shape(2, 32, 32, 16, 64, len(letters))
    matrices = {name: p for name, p in model.named_parameters() if p.dim() == 2}
    outputs = sum(p.numel() for name, p in matrices.items() if name.startswith("lm_head"))  # untied in tiny models
    assert sum(p.numel() for p in matrices.values()) - outputs == shape.parameters()
    lora = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert sum(p.numel() for name, p in lora.named_parameters() if "lora_" in name) == shape.lora(4)


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A letter-by-letter tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_base(tmp_path_factory.mktemp("letters") / "base"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A collection to train on, and one to test on that shares no text with it."""
    root = tmp_path_factory.mktemp("data")
    whole = collection()
    convert(whole, root / "data", "beir")
    backwards = replace(
        whole,
        documents={d: Document(d, document.text[::-1]) for d, document in whole.documents.items()},
        queries={q: Query(q, query.text[::-1]) for q, query in whole.queries.items()},
    )
    convert(backwards, root / "backwards", "beir")
    return root / "data", root / "backwards"


@pytest.mark.parametrize("path", ON_GPU, ids=lambda p: p.stem)
def test_both_stages_run_on_a_tiny_model_of_the_family(path, folders, letters, tmp_path):
    file = read_config(path)
    tiny = make_tiny(tmp_path / "tiny", FAMILIES[file["model"]], letters)
    config = json.loads((tiny / "config.json").read_text())
    if "sliding_window" in config:  # Gemma's own window is longer than a prompt of these letters
        (tiny / "config.json").write_text(json.dumps({**config, "sliding_window": 512}))
    data, test = folders
    words = ["train", "--config", str(path), "--model", str(tiny), "--data", str(data), "--test", str(test)]
    words += ["--out", str(tmp_path / "run"), "--teacher", "bm25", "--device", "cpu", "--threads", "1"]
    words += ["--max-length", "512", "--test-top-k", "3", "--test-queries", "2", "--eval-top-k", "3"]
    for stage in ("warmup", "refine"):
        changes = {"precision": "float32", "steps": 1, "eval_every": 1, "queries_per_step": 2, "lora_rank": 2}
        for name, value in {**changes, "held_out_queries": 2, "document_tokens": 12, "query_tokens": 12}.items():
            words += [f"--{stage}.{name}", str(value)]
    assert main(words) == 0
    last = None
    for number, block in enumerate(file["blocks"], 1):
        folder = tmp_path / "run" / f"refine-{number}-{block['name']}"
        record = json.loads((folder / "records.jsonl").read_text())
        assert record["steps"] == 1
        assert record["config"]["list_size"] == file["refine"]["list_size"]
        assert record["config"]["learning_rate"] == block["learning_rate"]
        assert last is None or record["model"] == str(last)
        last = folder / "best"
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| warmed-up |" in report
    assert "| refined |" in report
