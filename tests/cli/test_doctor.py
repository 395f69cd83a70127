"""``prorank doctor`` and ``prorank completion``: what is there and works, what crashes, and what a shell completes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank.cli.main import COMMANDS, main
from prorank.model.checkpoint import built_in_rerankers
from prorank.pipeline import doctor
from prorank.pipeline.doctor import Finding


@pytest.mark.parametrize(
    ("code", "state", "detail"),
    [
        ("say('fine')", "ok", "fine"),
        ("import os; os.abort()", "failed", "crashed: SIGABRT"),
        ("raise ImportError('not here')", "absent", "not here"),
        ("import prorank.nothing", "failed", "ModuleNotFoundError: No module named 'prorank.nothing'"),
        ("raise RuntimeError('broken')", "failed", "RuntimeError: broken"),
        ("import time; time.sleep(30)", "failed", "no answer within 3 s"),
        ("import os; os._exit(0)", "failed", "no message"),
    ],
)
def test_whatever_happens_to_an_engine_is_one_line(
    monkeypatch: pytest.MonkeyPatch, code: str, state: str, detail: str
) -> None:
    monkeypatch.setattr(doctor, "_TIMEOUT", 3.0 if "sleep" in code else 60.0)
    assert doctor._in_child("engine", "x", code) == Finding("engine", "x", state, detail)  # type: ignore[arg-type]


def test_what_is_here_is_listed(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_in_child", lambda part, name, _: Finding(part, name, "ok", "tried"))
    assert main(["doctor", "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows if row["part"] == "engine"] == [
        "torch",
        "native",
        "openvino",
        "onnx",
        "llamacpp",
    ]
    by_name = {row["name"]: row for row in rows}
    assert by_name["numpy"]["detail"] == np.__version__
    assert by_name[str(own_home / "cache")]["state"] == "ok"
    assert set(built_in_rerankers()) <= set(by_name)
    assert rows[-1]["part"] == "self-test"
    assert list(rows[0]) == ["part", "name", "state", "detail"]


def test_what_fails_makes_the_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    findings = [Finding("engine", "torch", "failed", "crashed: SIGILL"), Finding("engine", "onnx", "absent", "no")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "engine     FAILED  torch: crashed: SIGILL\nengine     -       onnx: no\n"
    assert captured.err == "prorank doctor: failed: engine torch\n"


@pytest.mark.usefixtures("base_folder")
def test_the_self_test_knows_right_margins_from_wrong_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all((folder / doctor.SELF_TEST).is_file() for folder in built_in_rerankers().values())
    from prorank.reranker import default_model

    name = default_model()
    assert name in doctor.self_test()
    folder = tmp_path / name
    shutil.copytree(built_in_rerankers()[name], folder)
    facts: dict[str, Any] = json.loads((folder / doctor.SELF_TEST).read_text())
    facts["margins"].reverse()
    (folder / doctor.SELF_TEST).write_text(json.dumps(facts))
    monkeypatch.setattr("prorank.model.checkpoint.built_in_rerankers", lambda: {name: folder})
    with pytest.raises(ValueError, match="largest difference of a margin"):
        doctor.self_test()


def test_a_self_test_without_its_base_is_no_fault() -> None:
    finding = doctor._in_child(
        "self-test", "margins", "from prorank.pipeline.doctor import self_test; say(self_test())"
    )
    assert finding.state in ("absent", "ok"), finding  # ok: an installed package holds the base


@pytest.mark.parametrize(
    ("typed", "wanted"), [("ra", "rank"), ("rank --min-m", "--min-margin"), ("doctor --format j", "jsonl")]
)
def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str, wanted: str) -> None:
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "prorank.bash"
    script.write_text(capsys.readouterr().out)
    words = ["prorank", *typed.split()]
    typed_words = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
    probe = f'source {script}; {typed_words}; _shtab_prorank; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        [bash, "-c", probe], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.stdout.split() == [wanted]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_every_command_is_completed(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
