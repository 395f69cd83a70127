"""examples/ray_trainer.py in two Ray workers: it learns what one process learns, and reports once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank.data.convert import convert
from prorank.training.runlog import read_log
from testkit.warmup import collection, make_base

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'ray[train]'")
REPO = Path(__file__).resolve().parents[2]


def losses(out: Path, stage: str) -> list[float]:
    return [line["loss"] for line in read_log(out / stage / "log.jsonl") if line["group"] == "train"]


def test_two_workers_learn_as_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prorank import TrainRun, train
    from prorank.training.refine.config import RefineConfig
    from prorank.training.warmup.config import WarmupConfig

    pytest.importorskip("ray.train.torch")
    paths = [str(REPO / "src"), str(REPO / "tests"), str(REPO / "examples")]
    monkeypatch.setenv("PYTHONPATH", ":".join([*paths, *filter(None, sys.path)]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    spec = importlib.util.spec_from_file_location("ray_trainer", REPO / "examples" / "ray_trainer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ray_trainer", module)
    spec.loader.exec_module(module)
    convert(collection(), tmp_path / "data", "beir")
    small: dict[str, Any] = {
        "steps": 3, "queries_per_step": 4, "held_out_queries": 2, "eval_every": 3, "document_tokens": 12,
        "query_tokens": 12, "precision": "float32",
    }  # fmt: skip
    common = {
        "data": str(tmp_path / "data"), "model": str(make_base(tmp_path / "tiny")), "device": "cpu", "threads": 1,
        "test_stages": ("refined",), "test_top_k": 5, "warmup": WarmupConfig(**small),
        "refine": RefineConfig(**small, list_size=4, hard_negatives=2),
    }  # fmt: skip
    train(TrainRun(**common, out=str(tmp_path / "one")))  # type: ignore[arg-type]
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        module.fit({**common, "out": str(tmp_path / "two")})
    finally:
        ray.shutdown()
    for stage in ("warmup", "refine"):
        np.testing.assert_allclose(losses(tmp_path / "two", stage), losses(tmp_path / "one", stage), atol=1e-4)
    assert "| refined |" in (tmp_path / "two" / "report.md").read_text("utf-8")
    assert len((tmp_path / "two" / "refine" / "records.jsonl").read_text("utf-8").splitlines()) == 1
