"""Bad input ends in one clear error before any work; interrupted writes leave the state before."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import prorank.training.checkpoint as checkpoint
from prorank.cli.main import main
from prorank.data.beir import write_beir
from prorank.data.collection import Collection
from prorank.training.runlog import read_log
from prorank.training.setup import training_encoder
from prorank.training.warmup.loop import warmup
from prorank.training.warmup.prompts import PromptSampler
from testkit.warmup import collection, config, load_tiny, make_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("input") / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_beir(collection(), tmp_path / "data")
    return tmp_path / "data"


FLAGS = (
    "--warmup.steps", "2", "--warmup.precision", "float32", "--warmup.lora_rank", "2", "--warmup.document_tokens", "12",
    "--warmup.query_tokens", "12", "--warmup.held_out_queries", "3", "--warmup.held_out", "0.2", "--device", "cpu",
    "--warmup.negatives", "2",
)  # fmt: skip


def command(folder: Path, data: Path, out: Path, *more: str) -> int:
    return main(["warmup", "--model", str(folder), "--data", str(data), "--out", str(out), *FLAGS, *more])


def run(folder: Path, out: Path, **changes):
    base, encoder = load_tiny(folder)
    settings = config(**changes)
    sampler = PromptSampler(collection(), settings)
    return warmup(base, encoder, sampler, settings, out, base_name=str(folder), device="cpu", progress=False)


def test_no_positives():
    empty = Collection("bare", collection().documents, collection().queries, {"q0": {"d0": 0}})
    with pytest.raises(ValueError, match="no query of bare has a relevant document"):
        PromptSampler(empty, config())


def test_graded_judgments_need_a_threshold():
    graded = replace(collection(), qrels={f"q{i}": {f"d{i % 10}": i % 3} for i in range(60)})
    with pytest.raises(ValueError, match="relevance_threshold"):
        PromptSampler(graded, config())
    sampler = PromptSampler(graded, config(relevance_threshold=2))
    assert all(graded.qrels[q][sampler._positives[q][0]] == 2 for q in sampler.train_ids)


def test_too_few_queries_to_hold_some_out():
    with pytest.raises(ValueError, match="held_out"):
        PromptSampler(collection(queries=1), config())


def test_hard_negatives_need_candidates():
    with pytest.raises(ValueError, match="hard_negatives"):
        PromptSampler(collection(), config(hard_negatives=1))


def test_prompt_longer_than_the_context(tmp_path):
    base, encoder = load_tiny(make_base(tmp_path / "short", positions=300))
    with pytest.raises(ValueError, match=r"document_tokens.*context of 300"):
        training_encoder(encoder, base.model, config(document_tokens=200))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_as_a_user(folder, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(ValueError, match="--out"):
        run(folder, locked / "run")


def test_unwritable_folder(folder, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match=r"--out.*cannot be written"):
        run(folder, tmp_path / "file" / "run")


def test_disk_without_room_is_found_before_training(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(ValueError, match=r"--out.*MiB left"):
        run(folder, tmp_path / "run")
    assert read_log(tmp_path / "run" / "log.jsonl") == []


def test_disk_full_in_the_middle_keeps_the_last_state(folder, tmp_path, monkeypatch):
    out, real, written = tmp_path / "run", checkpoint.save_file, []

    def full(tensors, path):
        written.append(path)
        if len(written) > 4:  # three files a state: the second state's second file
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        run(folder, out, steps=3, save_every=1)
    monkeypatch.undo()
    assert json.loads((out / "state" / "state.json").read_text())["step"] == 1
    assert not [p for p in out.iterdir() if p.name.startswith(".state")]
    assert run(folder, out, steps=3, save_every=1).steps == 3


def test_the_command_names_what_is_wrong_with_its_input(folder, data, tmp_path, capsys):
    """Exit code 2, one line, and no folder left behind: judgments, context, folder, chat template."""
    nothing = tmp_path / "nothing"
    write_beir(replace(collection(), qrels={f"q{i}": {"d0": 0} for i in range(60)}), nothing)
    graded = tmp_path / "graded"
    write_beir(replace(collection(), qrels={f"q{i}": {f"d{i % 10}": 1 + i % 2} for i in range(60)}), graded)
    (tmp_path / "file").write_text("not a folder")
    short = make_base(tmp_path / "short", positions=300)
    bare = make_base(tmp_path / "bare", chat=False)
    run_folder = tmp_path / "run"
    for base, material, out, flags, message in (
        (folder, nothing, run_folder, (), "has a relevant document"),
        (folder, graded, run_folder, (), "relevance_threshold"),
        (short, data, run_folder, ("--warmup.document_tokens", "200"), "--warmup.document_tokens"),
        (folder, data, tmp_path / "file" / "run", (), "--out"),
        (bare, data, run_folder, (), "chat template"),
        (folder, data, run_folder, ("--analysis-pairs", "1"), "--analysis-pairs"),
    ):
        assert command(base, material, out, *flags) == 2, message
        error = capsys.readouterr().err.strip()
        assert message in error
        assert error.splitlines()[-1].startswith("prorank warmup: error:")
    assert not run_folder.exists()


def test_the_command_tells_of_a_full_disk(folder, data, tmp_path, capsys, monkeypatch):
    def full(_, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert command(folder, data, tmp_path / "run") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not [p for p in (tmp_path / "run").iterdir() if "state" in p.name]


def test_the_train_split_is_taken_where_none_is_named(folder, data, tmp_path):
    (data / "qrels" / "test.tsv").rename(data / "qrels" / "train.tsv")
    (data / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\n")
    assert command(folder, data, tmp_path / "run", "--analysis-pairs", "0") == 0
    assert json.loads((tmp_path / "run" / "records.jsonl").read_text())["split"] == "train"


def test_other_settings_are_no_resumption(folder, tmp_path):
    run(folder, tmp_path / "run", steps=2)
    with pytest.raises(ValueError, match=r"--warmup.learning_rate"):
        run(folder, tmp_path / "run", steps=2, learning_rate=0.5)


def test_damaged_state_is_named(folder, tmp_path):
    run(folder, tmp_path / "run", steps=2)
    (tmp_path / "run" / "state" / "optimiser.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="damaged training state"):
        run(folder, tmp_path / "run", steps=2)


def test_interrupt_saves_and_the_same_command_goes_on(folder, tmp_path):
    straight = run(folder, tmp_path / "straight", steps=6)

    def interrupt():
        while not [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["group"] == "train"]:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="run the same command again"):
        run(folder, tmp_path / "run", steps=6)
    thread.join()
    assert run(folder, tmp_path / "run", steps=6).steps == 6

    def losses(out: Path) -> list[tuple[int, float]]:
        return [(line["step"], line["loss"]) for line in read_log(out / "log.jsonl") if line["group"] == "train"]

    assert losses(tmp_path / "run") == losses(tmp_path / "straight")
    assert straight.stopped == "finished"


def test_collapse_is_reported_and_stops(folder, tmp_path, capsys):
    """Paid for the answer 1 alone, a policy soon gives it to every prompt: seen, named, stopped."""
    result = run(
        folder, tmp_path / "run", steps=60, relevance_weight=0.0, extra_rewards=("testkit.warmup:says_one=1",),
        margin_cost=0.0, prior="none", learning_rate=0.05, lora_alpha=16.0, collapse_steps=3, on_collapse="stop",
        queries_per_step=2, held_out_queries=2,
    )  # fmt: skip
    assert result.stopped == "collapsed"
    assert 3 <= result.steps < 60
    assert "collapse: all greedy answers of 3 steps" in capsys.readouterr().err
    assert (result.after.margin > 0).all()


def test_no_signal_at_all_changes_nothing(folder, tmp_path):
    """No completion ever earns anything: groups are counted and refilled up to the limit, weights stay."""
    base, encoder = load_tiny(folder)
    settings = config(steps=1, extra_rewards=("testkit.warmup:nothing=1",), format_weight=0.0, relevance_weight=0.0)
    sampler = PromptSampler(collection(), settings)
    before = {n: p.clone() for n, p in base.model.named_parameters()}
    warmup(base, encoder, sampler, settings, tmp_path / "run", base_name="tiny", device="cpu", progress=False)
    line = next(x for x in read_log(tmp_path / "run" / "log.jsonl") if x["group"] == "train")
    assert (line["queries"], line["informative"], line["zero_variance"], line["gradient_norm"]) == (8, 0, 1.0, 0.0)
    after = dict(base.model.named_parameters())
    changed = [n for n, p in before.items() if n in after and not torch.equal(p, after[n])]
    assert not changed


def test_the_result_is_a_checkpoint_that_ranks(folder, data, tmp_path, capsys):
    """From the command line to a reranker: files, record, report; the log's margins are the reranker's."""
    from prorank.reranker import Reranker

    out = tmp_path / "run"
    assert command(folder, data, out) == 0
    for name in (
        "config.json",
        "log.jsonl",
        "records.jsonl",
        "report.html",
        "tensorboard",
        "best",
        "last",
        "state",
        "analysis",
    ):
        assert (out / name).exists(), name
    record = json.loads((out / "records.jsonl").read_text())
    assert record["steps"] == 2
    assert set(record["after"]) == set(record["interval95"])
    page = (out / "report.html").read_text()
    assert str(tmp_path) not in page
    assert all(title in page for title in ("Held out, greedy", "Learning curves", "Prompt understanding"))
    log = read_log(out / "log.jsonl")
    assert next(line["kl"] for line in log if line["group"] == "held_out") == pytest.approx(0, abs=1e-6)
    assert all("kl" not in line for line in log if line["group"] == "train")
    reranker = Reranker.from_pretrained(out / "last", dtype="float32")
    assert reranker.manifest.stage == "warmup"
    assert [r.index for r in reranker.rank("apple", ["apple apple", "bear bear"])]
    assert "checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--warmup.group_size", "one"), "--warmup.group_size"),
        (("--warmup.group_size", "1"), "--warmup.group_size"),
        (("--warmup.loss_type", "ppo"), "--warmup.loss_type"),
        (("--warmup.held_out", "1.5"), "--warmup.held_out"),
        (("--config", "none.toml"), "--config none.toml"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_bad_flags_are_named(folder, data, tmp_path, capsys, flags, message):
    assert command(folder, data, tmp_path / "run", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
