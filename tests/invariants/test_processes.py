"""One, two and four processes (gloo) learn the same, stop together, and go on from each other's state."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank.cli.main import main
from prorank.training.processes import open_accelerator
from prorank.training.runlog import read_log
from testkit.ranks import together
from testkit.refine import refine_config, train
from testkit.warmup import collection, config, load_tiny, make_base

STEPS = 5
COMMON = {"steps": STEPS, "queries_per_step": 6, "save_every": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "warmup": {**COMMON, "format_weight": 0.5, "prior": "running", "beta": 0.02},
    "refine": {**COMMON, "losses": ["softmax=1", "bce=0.2"]},
}
MEASURES = ("loss", "gradient_norm", "margin", "gap", "reward_format", "reward_relevance", "accuracy", "kl")
TOLERANCE = 1e-4
"""Of a step's loss and gradient norm: float32 sums in another order, grown over the steps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("processes") / "tiny")


def stage_run(stage: str, folder: str, out: str, changes: dict[str, Any], interrupt_at: int = 0) -> str:
    """A stage in one process or as one of several; why it stopped. ``interrupt_at``: Ctrl-C in the last process."""
    import prorank.training.refine.loop as refine_loop
    import prorank.training.warmup.loop as warmup_loop

    loop: Any = warmup_loop if stage == "warmup" else refine_loop
    real, last = loop.train_step, int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1

    def interrupted(*arguments: Any) -> Any:
        if arguments[-1].step + 1 == interrupt_at and last:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    loop.train_step = interrupted
    settings = {**SETTINGS[stage], **changes}
    try:
        if stage == "warmup":
            base, encoder = load_tiny(Path(folder))
            chosen = config(**settings)
            sampler = warmup_loop.PromptSampler(collection(), chosen)
            options = {"base_name": "tiny", "device": "cpu", "progress": False}
            return str(warmup_loop.warmup(base, encoder, sampler, chosen, Path(out), **options).stopped)
        scores = iter(range(100, 0, -1))  # worse at every evaluation
        chosen = refine_config(**{**settings, "losses": tuple(settings["losses"])})
        return str(train(Path(folder), Path(out), chosen, on_eval=lambda _: {"nDCG@10": float(next(scores))}).stopped)
    except KeyboardInterrupt as reason:
        return str(reason)
    finally:
        loop.train_step = real


def steps_of(out: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(out / "log.jsonl") if line["group"] == "train"]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for name in MEASURES:
        difference = np.array([a.get(name, 0.0) - b.get(name, 0.0) for a, b in zip(found, expected, strict=True)])
        assert np.abs(difference).max() <= TOLERANCE, (name, difference)
    assert any(line["loss"] != 0 for line in expected)


@pytest.mark.parametrize("stage", SETTINGS)
def test_four_processes_and_two_then_one(stage: str, folder: Path, tmp_path: Path) -> None:
    together(1, stage_run, stage, str(folder), str(tmp_path / "one"), {})
    straight = steps_of(tmp_path / "one")
    assert len(straight) == STEPS

    early = {"patience": 2, "eval_every": 1} if stage == "refine" else {}
    stopped = together(4, stage_run, stage, str(folder), str(tmp_path / "four"), early)
    assert stopped == ["settled" if early else "finished"] * 4, "all four know why"
    assert_same(steps_of(tmp_path / "four"), straight[: 3 if early else STEPS])  # the first is best, two more are not

    said = together(2, stage_run, stage, str(folder), str(tmp_path / "two"), {}, 2)
    assert said == ["stopped after step 2; run the same command again to resume"] * 2
    assert together(1, stage_run, stage, str(folder), str(tmp_path / "two"), {}) == ["finished"]
    assert_same(steps_of(tmp_path / "two"), straight)


def whole_run(command: list[str]) -> int:
    return main(command)


def test_the_whole_command_in_two_processes(folder: Path, tmp_path: Path) -> None:
    """Both train; the first alone tests, reports and writes."""
    from prorank.data.convert import convert

    convert(collection(), tmp_path / "data", "beir")
    small = {"steps": 2, "queries_per_step": 2, "held_out_queries": 2, "eval_every": 2, "document_tokens": 12}
    settings = [f"--{stage}.{name}={value}" for stage in SETTINGS for name, value in small.items()]
    settings += ["--refine.list_size=4", "--refine.hard_negatives=2", "--test-stages", "refined", "--test-top-k", "5"]
    out = tmp_path / "run"
    command = ["train", "--data", str(tmp_path / "data"), "--model", str(folder), "--out", str(out), "--device", "cpu"]
    assert together(2, whole_run, [*command, "--threads", "1", *settings]) == [0, 0]
    assert "| refined |" in (out / "report.md").read_text("utf-8")
    for stage in SETTINGS:
        (line,) = (out / stage / "records.jsonl").read_text("utf-8").splitlines()
        assert json.loads(line)["steps"] == 2
    assert len(list(out.glob("test-*"))) == 1


def test_sharding_launchers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="accelerate: FSDP is not supported; every process holds a whole model"):
        open_accelerator("cpu")
