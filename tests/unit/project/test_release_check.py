"""The release check finds what a wheel or an sdist lacks, and a tag that is not the version."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import release_check


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A wheel and an sdist that hold what they must."""
    wheel, source = tmp_path / "prorank-9.9.9-py3-none-any.whl", tmp_path / "prorank-9.9.9.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in release_check.WANTED:
            archive.writestr(name, b"")
    with tarfile.open(source, "w:gz") as archive:
        for name in ("LICENSE", "README.md", "CHANGELOG.md"):
            archive.addfile(tarfile.TarInfo(f"prorank-9.9.9/{name}"))
    return wheel, source


def test_what_is_whole_passes(files: tuple[Path, Path]) -> None:
    assert release_check.contents(*files) == []


def test_what_is_wanted_is_in_the_sources() -> None:
    assert all((release_check.REPO / "src" / name).is_file() for name in release_check.WANTED)


def test_what_is_missing_left_over_or_too_large_is_named(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, source = files
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("prorank/py.typed", b"")
        archive.writestr("prorank/base.gguf", bytes(2000))
    with tarfile.open(source, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("prorank-9.9.9/LICENSE"))
    monkeypatch.setattr(release_check, "LARGEST", 1000)
    problems = "\n".join(release_check.contents(wheel, source))
    for words in ("lacks prorank/backends/native/native.c", "holds prorank/base.gguf", "more than", "lacks README.md"):
        assert words in problems


def test_a_tag_is_the_version_and_in_the_changelog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True,
                       capture_output=True)  # fmt: skip

    monkeypatch.setattr(release_check, "REPO", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text("## [1.1.0]\n", "utf-8")
    git("init")
    git("commit", "--allow-empty", "-m", "one")
    assert release_check.unlike_the_tag("1.2.0") == []  # on the way
    git("tag", "v1.2.0")
    assert release_check.unlike_the_tag("1.2.0") == ["CHANGELOG.md has no section [1.2.0]"]
    (tmp_path / "CHANGELOG.md").write_text("## [1.2.0] - today\n", "utf-8")
    assert release_check.unlike_the_tag("1.2.0") == []
    assert "the tag is v1.2.0, the version 1.3.0" in release_check.unlike_the_tag("1.3.0")[0]
