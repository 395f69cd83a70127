"""Mapped weights leave the process's memory, and are still there when somebody reads them."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from prorank.backends.mapped import give_back


def resident(file: Path) -> int:
    """Bytes of the file's mappings that are in memory."""
    total, within = 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        if "-" in line.split()[0]:
            within = line.endswith(str(file))
        elif within and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is resident")
def test_pages_leave_and_come_back(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    content = bytes(range(256)) * 4096
    file.write_bytes(content)
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == content
        assert resident(file) == len(content)
        assert give_back(file)
        assert resident(file) == 0
        assert mapped[:] == content


def test_written_pages_and_other_files_stay(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"a" * 8192)
    assert not give_back(tmp_path / "other.bin")
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY) as private:
        private[:3] = b"new"
        assert not give_back(file)
        assert private[:3] == b"new"
