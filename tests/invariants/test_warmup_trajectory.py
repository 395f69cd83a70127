"""The same run, cut differently: forwards and accumulation, a kill in the middle. The same losses."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prorank.training.runlog import read_log
from prorank.training.warmup.loop import warmup
from prorank.training.warmup.prompts import PromptSampler
from testkit.warmup import collection, config, load_tiny, make_base

DRIVER = Path(__file__).with_name("warmup_driver.py")
STEPS = 6
SETTINGS = {
    "steps": STEPS,
    "queries_per_step": 8,
    "format_weight": 0.5,
    "prior": "running",
    "beta": 0.02,
    "save_every": 1,
}
TOLERANCE = 1e-4
"""Of a step's loss and gradient norm: float32 sums in another order, grown over the steps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("trajectory") / "tiny")


@pytest.fixture(scope="module")
def straight(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Eight queries in one forward pass, one process, never interrupted."""
    return here(folder, tmp_path_factory.mktemp("straight"), queries_per_forward=8)


def here(folder: Path, out: Path, **changes: Any) -> list[dict[str, Any]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        base, encoder = load_tiny(folder)
        settings = config(**{**SETTINGS, **changes})
        sampler = PromptSampler(collection(), settings)
        warmup(base, encoder, sampler, settings, out, base_name="tiny", device="cpu", progress=False)
    finally:
        torch.set_num_threads(threads)
    return steps_of(out)


def started(
    folder: Path, out: Path, changes: dict[str, Any], *more: str, **environment: str
) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(DRIVER), str(folder), str(out), json.dumps({**SETTINGS, **changes}), *more]
    return subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE)


def steps_of(out: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(out / "log.jsonl") if line["group"] == "train"]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float = TOLERANCE) -> None:
    """Largest difference of a step, and no drift: the mean difference is smaller still."""
    assert [line["step"] for line in found] == [line["step"] for line in expected] == list(range(1, STEPS + 1))
    for name in ("loss", "gradient_norm", "reward_format", "reward_relevance", "margin", "accuracy", "kl"):
        difference = np.array([a.get(name, 0.0) - b.get(name, 0.0) for a, b in zip(found, expected, strict=True)])
        assert np.abs(difference).max() <= tolerance, (name, difference)
        assert abs(difference.mean()) <= tolerance / 2, (name, difference)
    assert any(line["loss"] != 0 for line in expected)


@pytest.mark.parametrize("queries_per_forward", [4, 2, 1])
def test_accumulation_does_not_matter(folder, straight, tmp_path, queries_per_forward):
    assert_same(here(folder, tmp_path / "run", queries_per_forward=queries_per_forward), straight)


@pytest.mark.parametrize("save_every", [1, 2])
def test_killed_and_resumed_goes_on_to_the_same_losses(folder, straight, tmp_path, save_every):
    kill_at = random.randint(2, STEPS)
    changes = {"queries_per_forward": 8, "save_every": save_every}
    process = started(folder, tmp_path / "run", changes, str(kill_at))
    process.communicate(timeout=240)
    assert process.returncode == -9
    process = started(folder, tmp_path / "run", changes)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()[-2000:]
    assert_same(steps_of(tmp_path / "run"), straight, tolerance=1e-6)


def test_a_finished_run_is_not_trained_again(folder, tmp_path):
    first = here(folder, tmp_path / "run", queries_per_forward=8)
    before = (tmp_path / "run" / "last" / "adapter_model.safetensors").read_bytes()
    again = here(folder, tmp_path / "run", queries_per_forward=8)
    assert [line["step"] for line in again] == [line["step"] for line in first]
    assert (tmp_path / "run" / "last" / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.parametrize("changes", [{"updates_per_rollout": 2}, {"objective": "exact"}, {"objective": "supervised"}])
def test_other_objectives_accumulate_too(folder, tmp_path, changes):
    one = here(folder, tmp_path / "one", queries_per_forward=8, **changes)
    assert_same(here(folder, tmp_path / "two", queries_per_forward=2, **changes), one)
