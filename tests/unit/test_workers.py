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


def opener_of_file(path: str, handle: int) -> tuple[Any, Any]:
    first = os.fstat(handle).st_size == 0
    if first:
        os.pwrite(handle, Path(path).read_bytes(), 0)
    return first, lambda _: (os.pread(handle, 100, 0), Path(path).read_text())


def test_workers_share_a_room_and_one_that_cannot_come_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "model"
    file.write_text("weights")
    workers = Workers(opener_of_file, [(str(file),)] * 2, retries=1, room=True)
    assert workers.hello is True
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(workers, range(4))) == [(b"weights", "weights")] * 4
    assert workers.alive == 2
    os.kill(workers.pids[0], signal.SIGKILL)
    while workers.alive == 2:
        time.sleep(0.01)
    with caplog.at_level(logging.WARNING):
        assert workers.mend()
    assert workers.alive == 2
    assert [record.message.split(" (")[0][:16] for record in caplog.records] == ["worker 0 ended", "worker 0 is back"]
    workers.close()
    assert workers.alive == 0


def opener_once(path: str) -> tuple[Any, Any]:
    Path(path).rename(path + ".used")
    return None, lambda question: question


def test_a_worker_that_cannot_be_opened_again_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "once").touch()
    workers = Workers(opener_once, [(str(tmp_path / "once"),)], retries=1)
    os.kill(workers.pids[0], signal.SIGKILL)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            with pytest.raises(WorkerDiedError, match=r"worker 0 cannot be opened again: .*No such file"):
                workers("question")
        assert not workers.mend()
    assert len(caplog.records) == 1
    (tmp_path / "once").touch()
    assert workers("question") == "question"
    workers.close()


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
