"""Two processes of one run stop after the same step, whoever knows the reason; nobody waits for a process that left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.warmup import make_base

DRIVER = Path(__file__).with_name("stop_driver.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("stopping") / "tiny")


@pytest.mark.parametrize(
    ("mode", "said", "step"),
    [
        ("patience", "settled after 3", 3),  # the first evaluation is the best, two more are not
        ("refine-signal", "interrupted: stopped after step 2; the same command goes on from there", 2),
        ("warmup-signal", "interrupted: stopped after step 2; the same command goes on from there", 2),
    ],
)
def test_two_processes_stop_after_the_same_step(folder: Path, tmp_path: Path, mode: str, said: str, step: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, str(DRIVER), str(folder), str(tmp_path / "run"), mode]
    processes = [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    try:
        for process in processes:
            output, errors = process.communicate(timeout=100)
            assert process.returncode == 0, errors[-2000:]
            assert output.strip() == said
    finally:
        for process in processes:
            process.kill()
    assert json.loads((tmp_path / "run" / "state" / "state.json").read_text())["step"] == step
