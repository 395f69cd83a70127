"""What a run says while it runs: with and without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from prorank.training import runlog
from prorank.training.runlog import RunLog, read_log


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_without_a_terminal_a_line_comes_every_so_often(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first step, twice a minute, at the end: step of steps, what is watched, time left."""
    clock = Clock()
    monkeypatch.setattr(runlog, "time", clock)
    log = RunLog(tmp_path, 400, name="refine", resume_at=100)
    for step in range(101, 401):  # ten seconds a step
        clock.now += 10
        log.write(step, {"loss": 0.5})
        log.show(step, "loss 0.50 docs/s 3.10")
    log.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "refine: step 101 of 400: loss 0.50 docs/s 3.10; 50 min left"
    assert lines[1] == "refine: step 104 of 400: loss 0.50 docs/s 3.10; 49 min left"
    assert lines[-1] == "refine: step 400 of 400: loss 0.50 docs/s 3.10; 0 s left"
    assert len(lines) == 101
    assert len(read_log(tmp_path / "log.jsonl")) == 300


@pytest.mark.parametrize("folder", [True, False])
def test_nothing_is_said_where_it_is_not_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: bool
) -> None:
    log = RunLog(tmp_path if folder else None, 3, progress=False if folder else None)
    log.show(3, "loss 1")
    log.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (101, "2 min"), (3599, "1 h 00 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert runlog._duration(seconds) == text
