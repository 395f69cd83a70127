"""Worker processes: answers, errors as what they were, and what becomes of a worker that dies."""

from __future__ import annotations

import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prorank.workers import WorkerDiedError, Workers


def opener(factor: int, dies_over: str = "") -> tuple[Any, Any]:
    def answer(question: Any) -> Any:
        if question == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if question == "die once" and not Path(dies_over).exists():
            Path(dies_over).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if question == "raise":
            raise ValueError("field: this is wrong")
        return os.getpid() if question == "pid" else (question, factor)

    if factor < 0:
        raise ValueError("factor: not below 0")
    return {"factor": factor}, answer


def test_answers_errors_and_deaths(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(opener, [(3, str(tmp_path / "died"))] * 2, retries=1)
    assert workers.hello == {"factor": 3}
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(workers, range(20))) == [(i, 3) for i in range(20)]
    with pytest.raises(ValueError, match="field: this is wrong"):
        workers("raise")
    with caplog.at_level(logging.WARNING):
        assert workers("die once") == ("die once", 3)
    assert len(caplog.records) == 1
    assert "SIGKILL" in caplog.text
    with pytest.raises(WorkerDiedError, match=r"ended 2 times over the same work, at last by SIGKILL"):
        workers("die")
    assert workers("still here") == ("still here", 3)
    pids = [pid for pid in workers.pids if pid]
    workers.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_what_cannot_be_opened_is_told_once() -> None:
    with pytest.raises(ValueError, match="factor: not below 0"):
        Workers(opener, [(-1,), (-1,)])


def test_workers_end_with_a_driver_that_is_killed() -> None:
    import subprocess
    import sys

    script = "import time, sys; from prorank.workers import Workers; from test_workers import opener\n"
    script += "w = Workers(opener, [(1,)]); print(w('pid'), flush=True); time.sleep(60)"
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))])
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        driver.kill()
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the worker outlives its driver")
