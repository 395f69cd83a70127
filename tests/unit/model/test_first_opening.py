"""An engine that crashes when it is opened costs a child process, not the user's; and no child the second time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import prorank.model.first_opening as first_opening
from prorank import Reranker
from prorank.cli.main import main
from testkit.small_texts import DOCUMENTS, QUERY

pytest.importorskip("openvino")

# Python runs this file when a child starts: OpenVINO then ends the process as it did on processors with AMX.
CRASHING = """
import os, signal
import openvino

whole = openvino.Core.compile_model

def compile_model(self, path, device, settings):
    if settings["NUM_STREAMS"] != {survives!r}:
        os.kill(os.getpid(), signal.SIGFPE)
    return whole(self, path, device, settings)

openvino.Core.compile_model = compile_model
"""


@pytest.fixture(scope="module")
def exported(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OpenVINO export for short prompts, so that two cores compute two batches at a time."""
    from prorank.export.targets import export

    reranker = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=160)
    return export(reranker, "openvino-f32", tmp_path_factory.mktemp("first") / "export")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that remembers nothing of other tests."""
    monkeypatch.setenv("PRORANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of the children that were started."""
    started: list[list[str]] = []
    run = subprocess.run

    def counting(command, **options):
        started.append(command)
        return run(command, **options)

    monkeypatch.setattr(first_opening.subprocess, "run", counting)
    return started


def crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: str) -> None:
    (tmp_path / "crash").mkdir()
    (tmp_path / "crash" / "sitecustomize.py").write_text(CRASHING.format(survives=survives), "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "crash"))


def test_a_child_opens_it_once(exported: Path, children: list[list[str]], own_cache: Path) -> None:
    first = Reranker.from_pretrained(exported, threads=2)
    assert first.backend.capabilities.passes == 2
    assert len(children) == 1
    Reranker.from_pretrained(exported, threads=2)
    assert len(children) == 1, "remembered"
    (kept,) = (own_cache / "opened").iterdir()
    kept.write_text("half a", "utf-8")
    Reranker.from_pretrained(exported, threads=2)
    assert len(children) == 2, "a damaged memory is none"


def test_a_crash_leads_to_a_more_cautious_way(
    exported: Path, children: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    wanted = Reranker.from_pretrained(exported, threads=1).margins(QUERY, DOCUMENTS)
    crash(tmp_path, monkeypatch, survives="1")
    children.clear()
    cautious = Reranker.from_pretrained(exported, threads=2)
    assert len(children) == 2
    assert cautious.backend.capabilities.passes == 1
    assert "SIGFPE" in caplog.text
    np.testing.assert_allclose(cautious.margins(QUERY, DOCUMENTS), wanted, atol=1e-4)
    assert Reranker.from_pretrained(exported, threads=2).backend.capabilities.passes == 1
    assert len(children) == 2, "remembered"


def test_a_crash_every_way_is_one_line(
    exported: Path, children: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    crash(tmp_path, monkeypatch, survives="none")
    passages = tmp_path / "passages.txt"
    passages.write_text("a germ\n", "utf-8")
    command = ["rank", "--query", QUERY, "--documents", str(passages), "--model", str(exported)]
    for started in (3, 3):  # three ways the first time, none the second
        assert main(command) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].count("openvino 2") == 1
        assert "crashes on this processor (SIGFPE); export to native-int8 or onnx-int8 instead" in lines[-1]
        assert len(children) == started


def test_an_error_that_is_no_crash_is_told_as_it_is(exported: Path, children: list[list[str]], tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    (copy / "labels.safetensors").unlink()
    manifest = (copy / "prorank.json").read_text("utf-8")
    (copy / "prorank.json").write_text(manifest.replace('"labels.safetensors"', '"parity.json"'), "utf-8")
    (copy / "parity.json").write_bytes((exported / "labels.safetensors").read_bytes())
    for _ in range(2):
        with pytest.raises(ValueError, match=r"labels\.safetensors is missing"):
            Reranker.from_pretrained(copy)
    assert len(children) == 2, "not remembered"


@pytest.mark.parametrize(("code", "name"), [(-8, "SIGFPE"), (-11, "SIGSEGV"), (0, ""), (1, ""), (0xC0000005, "0xc")])
def test_exit_codes(code: int, name: str) -> None:
    assert name in first_opening._signal(code)
    assert bool(name) == bool(first_opening._signal(code))


def test_memory_that_runs_out_is_not_remembered(
    exported: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_opening, "_child", lambda _job: ({"trying": 0}, "SIGKILL"))
    with pytest.raises(ImportError, match="enough memory"):
        Reranker.from_pretrained(exported)
    assert not (own_cache / "opened").exists()
