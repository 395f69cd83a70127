"""Stage 2 cut differently: cached gradients, a kill in the middle. The same losses."""

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
from testkit.refine import refine_config, train
from testkit.warmup import make_base

DRIVER = Path(__file__).with_name("refine_driver.py")
STEPS = 6
SETTINGS = {
    "steps": STEPS, "queries_per_step": 8, "losses": ["softmax=1", "bce=0.2", "kl=0.5"], "format_cost": 0.1,
    "save_every": 1,
}  # fmt: skip
TOLERANCE = 1e-4
"""Of a step's loss and gradient norm: float32 sums in another order, grown over the steps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("refine") / "tiny")


@pytest.fixture(scope="module")
def straight(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One process, whole lists, never interrupted."""
    return here(folder, tmp_path_factory.mktemp("straight") / "run")


def here(folder: Path, out: Path, **changes: Any) -> list[dict[str, Any]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        settings = {**SETTINGS, **changes}
        train(folder, out, refine_config(**{**settings, "losses": tuple(settings["losses"])}))
    finally:
        torch.set_num_threads(threads)
    return steps_of(out)


def started(folder: Path, out: Path, *more: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(DRIVER), str(folder), str(out), json.dumps(SETTINGS), *more]
    return subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE)


def steps_of(out: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(out / "log.jsonl") if line["group"] == "train"]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float = TOLERANCE) -> None:
    assert [line["step"] for line in found] == [line["step"] for line in expected] == list(range(1, STEPS + 1))
    for name in ("loss", "gradient_norm", "margin", "gap"):
        difference = np.array([a[name] - b[name] for a, b in zip(found, expected, strict=True)])
        assert np.abs(difference).max() <= tolerance, (name, difference)
    assert expected[-1]["loss"] < expected[0]["loss"]


@pytest.mark.parametrize("changes", [{"forward_tokens": 40}, {"share_prefix": False}])
def test_gradient_caching_and_prefix_sharing_do_not_matter(folder, straight, tmp_path, changes):
    assert_same(here(folder, tmp_path / "run", **changes), straight)


def test_killed_and_resumed_goes_on_to_the_same_losses(folder, straight, tmp_path):
    process = started(folder, tmp_path / "run", str(random.randint(2, STEPS)))
    process.communicate(timeout=240)
    assert process.returncode == -9
    process = started(folder, tmp_path / "run")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()[-2000:]
    assert_same(steps_of(tmp_path / "run"), straight, tolerance=1e-6)


def test_the_best_of_the_evaluations_is_kept_and_loads(folder, tmp_path):
    from prorank.reranker import Reranker

    scores = iter([0.1, 0.5, 0.9, 0.3])
    seen = []

    def on_eval(reranker: Reranker) -> dict[str, float]:
        seen.append(reranker.margins("apple", ["apple apple", "bear bear"]))
        return {"nDCG@10": next(scores)}

    result = train(folder, tmp_path / "run", refine_config(steps=3, eval_every=1), on_eval=on_eval)
    assert (result.best_step, result.before, result.after) == (2, {"nDCG@10": 0.1}, {"nDCG@10": 0.3})
    best = Reranker.from_pretrained(str(result.best), dtype="float32").margins("apple", ["apple apple", "bear bear"])
    np.testing.assert_allclose(best, seen[2], atol=1e-4)
    last = Reranker.from_pretrained(str(result.last), dtype="float32").margins("apple", ["apple apple", "bear bear"])
    np.testing.assert_allclose(last, seen[3], atol=1e-4)
    assert np.abs(best - last).max() > 1e-3


def test_it_goes_on_from_an_adapter(folder, tmp_path):
    first = train(folder, tmp_path / "one", refine_config(steps=4))
    second = train(folder, tmp_path / "two", refine_config(steps=1), adapter=first.last)
    ends = steps_of(tmp_path / "one")[-1]["loss"], steps_of(tmp_path / "two")[0]["loss"]
    begins = steps_of(tmp_path / "one")[0]["loss"]
    assert ends[1] < (begins + ends[0]) / 2
    assert second.steps == 1
