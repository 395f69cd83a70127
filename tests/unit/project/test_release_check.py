"""The release check finds what a wheel or an sdist lacks, and a tag that is not the version."""

from __future__ import annotations

import hashlib
import json
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
        for name in ("LICENSE", "README.md", "CHANGELOG.md", "hatch_build.py"):
            archive.addfile(tarfile.TarInfo(f"prorank-9.9.9/{name}"))
    return wheel, source


def test_what_is_whole_passes(files: tuple[Path, Path]) -> None:
    assert release_check.contents(*files) == []


def test_an_engine_that_is_missing_or_of_other_sources_is_named(tmp_path: Path) -> None:
    hatch_build = pytest.importorskip("hatch_build", reason="hatchling is not installed (group wheel)")
    wheel, into = tmp_path / "prorank-9.9.9-py3-none-any.whl", hatch_build.INTO
    files = {f"{into}/native.c": b"int a;", f"{into}/b.h": b"int b;"}

    def problems(**index: object) -> list[str]:
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
            if index:
                archive.writestr(f"{into}/binaries.json", json.dumps(index))
            for one in index.get("libraries", ()):  # type: ignore[attr-defined]
                archive.writestr(f"{into}/{one['file']}", b"")
        return release_check.engines(wheel)

    assert problems() == [f"{wheel.name} carries no engine: build it where ziglang is installed (make wheel)"]
    all_of_them = [
        {"file": f"binaries/{system}/{level}.so"}
        for system, (_, levels) in hatch_build.SYSTEMS.items()
        for level in levels
    ]
    sources = hashlib.sha256(b"int a;\0int b;").hexdigest()
    assert problems(sources=sources, libraries=all_of_them) == []
    lacks, other = problems(sources="0", libraries=all_of_them[1:])
    assert lacks == f"{wheel.name} carries no engine for linux-x86_64, avx2"
    assert "other sources" in other


def test_pythons_of_version_managers_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    pyenv, uv = ".pyenv/versions/3.12.1/bin", ".local/share/uv/python/cpython-3.13.2-linux-x86_64-gnu/bin"
    broken = ".pyenv/versions/3.11.7/bin"
    for folder, code in ((pyenv, 0), (uv, 0), (broken, 1)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "python").write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / folder / "python").chmod(0o755)
    found = release_check.there(tmp_path)
    assert found == {"python3.12": f"{tmp_path}/{pyenv}/python", "python3.13": f"{tmp_path}/{uv}/python"}


def test_one_wheel_is_expected(tmp_path: Path, files: tuple[Path, Path]) -> None:
    wheel, source = files
    assert release_check.lying(tmp_path) == (wheel, source)
    source.unlink()
    assert release_check.lying(tmp_path) == (wheel, None)
    wheel.unlink()
    with pytest.raises(SystemExit, match="expected one wheel"):
        release_check.lying(tmp_path)


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
