"""The runner of the tests: a folder that dies is named, the others run, and the closing line and exit code say so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import suite

import prorank.backends.processor as processor

OK = "def test_one():\n    assert True\n\ndef test_two():\n    assert True\n"
DIES = "import os, signal\n\ndef test_dies():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
FAILS = "def test_fails():\n    assert False\n"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without tests."""
    monkeypatch.setattr(suite, "REPO", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # starts in a fraction of a second
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -q -p no:cacheprovider\n", "utf-8")
    return tmp_path


def write(repo: Path, **folders: str) -> None:
    for name, text in folders.items():
        (repo / "tests" / name).mkdir(parents=True)
        (repo / "tests" / name / f"test_{name}.py").write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("folders", "code", "told"),
    [
        ({"a": OK}, 0, ["tests/a: 2 passed", "=== 2 passed in"]),
        (
            {"a": FAILS, "b": DIES, "c": OK},
            1,
            ["tests/a: 1 failed (exit code 1)", "tests/b: no tests ran (ended by SIGKILL)", "=== 1 failed, 2 passed"],
        ),
    ],
)
def test_every_folder_is_told(
    repo: Path, capsys: pytest.CaptureFixture[str], folders: dict[str, str], code: int, told: list[str]
) -> None:
    write(repo, **folders)
    assert suite.main([]) == code
    lines = capsys.readouterr().out.splitlines()
    summary = lines[lines.index("== summary") :]
    assert all(any(line.startswith(one) for line in summary) for one in told), summary


def test_folders_in_folders_run_once(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(repo, a=OK)
    (repo / "tests" / "a" / "deep").mkdir()
    (repo / "tests" / "a" / "deep" / "test_deep.py").write_text(OK, "utf-8")
    assert suite.main([]) == 0
    assert any(line.startswith("=== 4 passed in") for line in capsys.readouterr().out.splitlines())


@pytest.mark.usefixtures("repo")
def test_no_tests_at_all_is_no_success() -> None:
    assert suite.main([]) == 1


def test_levels_are_those_of_the_processor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    flags = frozenset(flag for one in processor.LEVELS[:3] for flag in one.needs)
    monkeypatch.setattr(processor, "processor_features", lambda: flags)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    ran = {}

    def record(name, arguments, environment):
        ran[name] = environment["ONEDNN_MAX_CPU_ISA"]
        return suite.PytestOutcome(0, Counter(passed=len(arguments)))

    monkeypatch.setattr(suite, "ran", record)
    assert suite.main(["--levels"]) == 0
    assert ran == {"avx2": "AVX2", "avx512": "AVX512_CORE", "avx512_vnni": "AVX512_CORE_VNNI"}
    told = capsys.readouterr().out
    assert "avx512_bf16: skipped" in told
    assert "amx: skipped" in told


def test_its_tests_of_scores_exist() -> None:
    assert all((Path(suite.__file__).parents[1] / name).is_file() for name in suite.SCORES)
