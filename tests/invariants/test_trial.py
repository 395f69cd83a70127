"""Held-out checks score the policy itself: what a user will get, without a copy, and without a trace in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prorank.reranker import Reranker
from prorank.training.refine.lists import Mixture
from prorank.training.refine.loop import refine
from prorank.training.runlog import read_log
from testkit.refine import refine_config, source, train
from testkit.warmup import load_tiny, make_base

TEXTS = ["apple apple", "bear bear", "cat cat cat cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("trial") / "tiny")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_evaluation_copies_no_weights(folder: Path, tmp_path: Path, precision: str) -> None:
    base, encoder = load_tiny(folder)
    config = refine_config(steps=2, eval_every=1, precision=precision)
    shared = []

    def on_eval(reranker: Reranker) -> dict[str, float]:
        model: Any = reranker.backend.model  # type: ignore[attr-defined]
        shared.append(
            model.get_input_embeddings().weight.data_ptr() == base.model.get_input_embeddings().weight.data_ptr()
        )
        return {"nDCG@10": 0.0}

    refine(
        base, encoder, Mixture([source(config)], config), config, tmp_path / "run", base_name="tiny", device="cpu",
        progress=False, on_eval=on_eval,
    )  # fmt: skip
    assert shared == [True] * 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"share_prefix": False, "forward_tokens": 100},
        {"full_parameters": True},
        {"full_parameters": True, "precision": "bfloat16", "share_prefix": False},
        {"precision": "bfloat16"},
    ],
)
def test_an_evaluation_leaves_no_trace_in_training(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Losses are the same to the last bit, and what was measured last is what the checkpoint scores."""
    seen: list[np.ndarray] = []

    def on_eval(reranker: Reranker) -> dict[str, float]:
        seen.append(reranker.margins("apple", TEXTS))
        return {"nDCG@10": 0.0}

    config = refine_config(**{"steps": 3, "eval_every": 1, "learning_rate": 1e-3, **changes})
    result = train(folder, tmp_path / "measured", config, on_eval=on_eval)
    train(folder, tmp_path / "plain", config)

    def steps(name: str) -> list[tuple[float, float]]:
        lines = read_log(tmp_path / name / "log.jsonl")
        return [(line["loss"], line["gradient_norm"]) for line in lines if line["group"] == "train"]

    assert steps("measured") == steps("plain")
    found = Reranker.from_pretrained(str(result.last), dtype=config.precision, device="cpu").margins("apple", TEXTS)
    exact = config.precision == "float32"
    np.testing.assert_allclose(found, seen[-1], atol=1e-4 if exact else 0.06)
    assert torch.isfinite(torch.tensor(seen[-1])).all()
