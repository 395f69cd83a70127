"""Several processes and Ray against one process: the same scores to the last bit, also where a worker is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank import Reranker
from prorank.backends.cores import available_cores
from prorank.batch import job, local
from prorank.batch.job import ScoreRun, score_pairs
from prorank.cli.main import main
from prorank.model.options import LoadOptions
from testkit.batch import margins_in, rows, write_jsonl
from testkit.native import runs_here, small_native

pytestmark = [runs_here, pytest.mark.skipif(available_cores() < 2, reason="needs two cores")]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def model(own_home: Path, tmp_path: Path, compiled: Path) -> str:
    (own_home / "cache" / "native").symlink_to(compiled)  # the engine is compiled once
    return str(small_native(tmp_path / "model"))


def wanted(model: str, lines: list[dict[str, str]]) -> list[tuple[str, str, float]]:
    margins = Reranker.from_pretrained(model).score([(row["query"], row["text"]) for row in lines])
    return [(row["query_id"], row["doc_id"], float(m)) for row, m in zip(lines, margins, strict=True)]


def test_one_reranker_in_two_processes(model: str) -> None:
    one, two = Reranker.from_pretrained(model), Reranker.from_pretrained(model, processes=2)
    documents = [f"passage {i} about germs" + " and bread" * (i % 9) for i in range(40)]
    assert two.rank("what is a germ", documents) == one.rank("what is a germ", documents)
    assert two.fingerprint == one.fingerprint
    os.kill(two.backend.workers.pids[0], signal.SIGKILL)  # type: ignore[attr-defined]
    assert np.array_equal(two.margins("flour", documents), one.margins("flour", documents))
    two.backend.close()  # type: ignore[attr-defined]


def test_a_job_whose_worker_is_killed(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, whole = rows(30, 20), local.LocalEngine.scored

    def kills(self: Any, reading: Any) -> Any:
        for number, done in enumerate(whole(self, reading)):
            if number == 0:
                os.kill(max(self._workers.pids), signal.SIGKILL)
            yield done

    monkeypatch.setattr(local.LocalEngine, "scored", kills)
    run = ScoreRun(out=str(tmp_path / "out"), input=[str(write_jsonl(tmp_path / "a.jsonl", lines))], part_rows=100)
    assert score_pairs(run, LoadOptions(model, processes=2)).scored_rows == 600
    assert margins_in(tmp_path / "out") == wanted(model, lines)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["score", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bad_input_is_one_line(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_jsonl(tmp_path / "a.jsonl", rows(1, 2)))
    start = ("--model", model, "--input", file, "--out", str(tmp_path / "out"))
    assert "--engine: expected local or ray, got 'spark'" in told(capsys, *start, "--engine", "spark")
    many = str(available_cores() + 1)
    assert f"--processes: {many} processes are more than the" in told(capsys, *start, "--processes", many)
    assert "--out DIR is missing" in told(capsys, *start[:4])
    if importlib.util.find_spec("ray") is None:
        assert "ray is not installed; it comes with: pip install 'prorank[ray]'" in told(
            capsys, *start, "--engine", "ray"
        )
    else:
        gone = ("--engine", "ray", "--address", "127.0.0.1:9")
        assert "--address: nobody answers at 127.0.0.1:9" in told(capsys, *start, *gone)
    assert not (tmp_path / "out").exists()


def test_ray(model: str, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'prorank[ray]'")
    lines = rows(6, 20)
    run = ScoreRun(
        out=str(tmp_path / "out"), input=[str(write_jsonl(tmp_path / "a.jsonl", lines))], part_rows=50,
        engine="ray", concurrency=1,
    )  # fmt: skip
    assert score_pairs(run, LoadOptions(model, threads=1)).scored_rows == 120
    assert margins_in(tmp_path / "out") == wanted(model, lines)
    assert not ray.is_initialized()
    assert "ray" in job.ENGINES
