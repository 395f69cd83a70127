"""What the container image promises: our own engine can be compiled in it, nobody is root, and it says how it is."""

from __future__ import annotations

import json
import re
import shlex
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
    assert any("--constraint constraints.txt" in line for line in of(build, "RUN"))
    ignored = (REPO / ".dockerignore").read_text("utf-8").split()
    assert not set(copied) & set(ignored)


def test_the_last_stage_can_compile_our_own_engine(stages: list[list[tuple[str, str]]]) -> None:
    installs = [shlex.split(line) for line in of(stages[-1], "RUN") if "apt-get install" in line]
    assert installs, "no package is installed"
    assert {"gcc", "libc6-dev"} <= set(installs[0])
    assert "--no-install-recommends" in installs[0]
    assert any("rm -rf /var/lib/apt/lists/*" in line for line in of(stages[-1], "RUN"))


def test_it_runs_as_nobody_special_with_a_cache_that_is_its_own(stages: list[list[tuple[str, str]]]) -> None:
    last = stages[-1]
    assert of(last, "USER") == ["prorank"]
    order = [name for name, _ in last]
    assert max(i for i, name in enumerate(order) if name == "RUN") < order.index("USER"), "root's steps come before"
    settings = dict(pair.split("=", 1) for line in of(last, "ENV") for pair in line.split())
    assert settings["PRORANK_CACHE"] == "/cache"
    assert of(last, "VOLUME") == ["/cache"]
    assert any("chown prorank /cache" in line for line in of(last, "RUN"))


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
