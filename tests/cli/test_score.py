"""`prorank score` as a whole, killed and out of room: the same command again gives what an undisturbed run gives."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prorank.backends.cores import available_cores
from testkit.batch import rows, write_jsonl
from testkit.native import runs_here, small_native

pytestmark = [
    runs_here,
    pytest.mark.skipif(available_cores() < 2, reason="needs two cores"),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers by /proc"),
]

QUERIES, DOCUMENTS, PART = 60, 20, 40


class Job:
    """The command with its input, run as often as a test wants, each time as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        words = "germs and bread, flour and water, and what they have to do with each other; " * 12
        lines = [{**row, "text": f"{row['text']} {words}"} for row in rows(QUERIES, DOCUMENTS)]
        self._flags = [
            "--input", str(write_jsonl(folder / "pairs.jsonl", lines)), "--model", str(small_native(folder / "model")),
            "--processes", "2", "--part-rows", str(PART),
        ]  # fmt: skip

    def start(self, out: Path | None = None, *, limit: int | None = None) -> subprocess.Popen[str]:
        def limited() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        command = [sys.executable, "-m", "prorank.cli.main", "score", *self._flags, "--out", str(out or self.out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limited)

    def finish(self, out: Path | None = None) -> str:
        """Run to the end; what it prints."""
        process = self.start(out)
        printed, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        return printed

    def parts(self, out: Path | None = None) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (out or self.out).glob("part-*.jsonl")}

    def in_the_middle(self, process: subprocess.Popen[str], disturb: Callable[[], None]) -> None:
        """Disturb a run that has finished some parts and not all."""
        deadline = time.monotonic() + 120
        while len(self.parts()) < 3:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)
        disturb()


def workers_of(pid: int) -> list[int]:
    return [int(child) for one in Path(f"/proc/{pid}/task").glob("*/children") for child in one.read_text().split()]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the engine is compiled, once."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, compiled: Path) -> Iterator[dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "cache").mkdir()
    (folder / "cache" / "native").symlink_to(compiled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRORANK_CACHE", str(folder / "cache"))
        job = Job(folder)
        printed = job.finish()
        assert f"{QUERIES * DOCUMENTS} pairs in {QUERIES * DOCUMENTS // PART} parts; " in printed
        yield job.parts()


@pytest.fixture
def job(own_home: Path, tmp_path: Path, compiled: Path) -> Job:
    (own_home / "cache" / "native").symlink_to(compiled)
    return Job(tmp_path)


def test_the_driver_is_killed(job: Job, undisturbed: dict[str, bytes]) -> None:
    first = job.start()
    job.in_the_middle(first, first.kill)
    first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL
    found = len(job.parts())
    assert 3 <= found < len(undisturbed)
    there = {name: (job.out / name).stat().st_mtime_ns for name in job.parts()}
    assert " of the parts there before" in job.finish()
    assert job.parts() == undisturbed
    again = [name for name, when in there.items() if (job.out / name).stat().st_mtime_ns != when]
    assert len(again) <= 1, "a part that was written and not yet noted, at most, is made again"
    assert not list(job.out.glob(".part-*"))


def test_a_worker_is_killed(job: Job, undisturbed: dict[str, bytes]) -> None:
    process = job.start()
    job.in_the_middle(process, lambda: os.kill(workers_of(process.pid)[0], signal.SIGKILL))
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert said.count("ended (SIGKILL)") == 1
    assert job.parts() == undisturbed


def refused_for_room(process: subprocess.Popen[str], reason: str) -> None:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 2, said
    line = said.splitlines()[-1]
    assert line.startswith("prorank score: error: --out: ")
    assert reason in line
    assert "run the same command again" in line
    assert "Traceback" not in said


def test_a_file_that_may_not_grow(job: Job, undisturbed: dict[str, bytes]) -> None:
    job.out.mkdir()
    small = min(map(len, undisturbed.values()))
    refused_for_room(job.start(limit=small - 100), "File too large")
    assert not job.parts()
    job.finish()
    assert job.parts() == undisturbed


def test_a_full_disk(job: Job, undisturbed: dict[str, bytes]) -> None:
    job.out.mkdir()
    room = sum(map(len, undisturbed.values())) // 2
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room},mode=700", "tmpfs", str(job.out)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"there is no mount command: {error}")
    if mounted.returncode:
        pytest.skip(f"a file system of a few pages cannot be mounted here: {mounted.stderr.strip()}")
    try:
        refused_for_room(job.start(), "No space left on device")
        found = job.parts()
        assert 0 < len(found) < len(undisturbed)
        assert found.items() <= undisturbed.items(), "what is there is whole"
        subprocess.run(["mount", "-o", "remount,size=64m", str(job.out)], check=True)
        assert f"; {(len(undisturbed) - len(found)) * PART} scored in" in job.finish()
        assert job.parts() == undisturbed
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", str(job.out)], check=True, capture_output=True)
