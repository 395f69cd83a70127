"""Folders that are replaced as a whole: killed at any point, failing at any point, written by two at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prorank.files import atomic_folder, folder_lock, recover_folder
from prorank.training.checkpoint import read_progress

KILLED = """
import os, signal, sys
import prorank.files as files
real, seen = os.rename, []
def rename(*names):
    seen.append(names)
    if len(seen) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(*names)
with files.atomic_folder(sys.argv[1]) as aside:
    (aside / "state.json").write_text('{"step": 2}')
    os.rename = rename
"""


def write(folder: Path, step: int) -> None:
    with atomic_folder(folder) as aside:
        (aside / "state.json").write_text(f'{{"step": {step}}}')


def step_of(folder: Path) -> int | None:
    found = read_progress(folder)
    return None if found is None else found["step"]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path, at: int) -> None:
    """Renames: complete; the old one away; the new one in its place. A state is there whichever is the last."""
    folder = tmp_path / "run" / "state"
    write(folder, 1)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(at)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert folder.exists() == (at < 3)
    assert step_of(folder) == (1 if at < 3 else 2)  # complete, but not yet in its place: the newest where none is there
    write(folder, 3)
    assert step_of(folder) == 3
    assert os.listdir(folder.parent) == ["state"]


def test_a_first_version_killed_before_its_rename_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "state"
    folder.parent.mkdir()
    subprocess.run([sys.executable, "-c", KILLED, str(folder), "2"], check=False)
    assert step_of(folder) == 2


def test_where_the_second_rename_fails_the_old_version_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run" / "state"
    write(folder, 1)
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if Path(target) == folder and ".ready." in Path(source).name:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        write(folder, 2)
    monkeypatch.undo()
    assert step_of(folder) == 1
    assert os.listdir(folder.parent) == ["state"]


def test_leftovers_of_another_name_stay(tmp_path: Path) -> None:
    other = tmp_path / ".state.b.old.abcdefgh"
    other.mkdir()
    recover_folder(tmp_path / "state")
    write(tmp_path / "state", 1)
    assert other.is_dir()


def test_a_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside, most, waited = [], [], []

    def work() -> None:
        for _ in range(20):
            with folder_lock(tmp_path / "x", on_wait=lambda: waited.append(1)):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert waited
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".lock")]
