"""`prorank serve --processes`: one acceptor and one queue before real worker processes, some of which are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from prorank import Reranker
from prorank.backends.cores import available_cores
from prorank.cli.main import main
from testkit.native import runs_here, small_native

pytestmark = [runs_here, pytest.mark.skipif(available_cores() < 2, reason="needs two cores")]

DOCUMENTS = [f"passage {i} about germs" + " and bread" * (i % 7) for i in range(24)]


class Command:
    """A running `prorank serve`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log = folder / "log"
        command = [sys.executable, "-m", "prorank.cli.main", "serve", "--port", str(port), *flags]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
        self.until(lambda: self.status("/ready") == 200)

    def status(self, path: str) -> int:
        try:
            return self.http.get(path).status_code
        except httpx.TransportError:
            assert self.process.poll() is None, self.log.read_text()
            return 0

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not true():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def rerank(self, query: str = "what is a germ") -> httpx.Response:
        return self.http.post("/v1/rerank", json={"query": query, "documents": DOCUMENTS, "raw_scores": True})

    @property
    def workers(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return sorted(int(pid) for one in tasks for pid in one.read_text().split())

    def alive(self) -> int:
        (line,) = [one for one in self.http.get("/metrics").text.splitlines() if one.startswith("prorank_workers{")]
        return int(float(line.split()[-1]))

    def said(self, text: str) -> int:
        return sum(text in json.loads(line)["message"] for line in self.log.read_text().splitlines())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Command, Path]]:
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("the system does not list a process's children")
    model = small_native(tmp_path / "model")
    command = Command(tmp_path, "--processes", "2", "--model", f"tiny={model}")
    yield command, model
    command.process.kill()
    command.process.wait()


def test_workers_that_are_killed(served: tuple[Command, Path]) -> None:
    server, model = served
    reranker = Reranker.from_pretrained(str(model))
    right = {query: [row.margin for row in reranker.rank(query, DOCUMENTS)] for query in map(str, range(30))}

    def margins(answer: httpx.Response) -> list[float]:
        assert answer.status_code == 200, answer.text
        return [row["relevance_score"] for row in answer.json()["results"]]

    first = server.workers
    assert len(first) == server.alive() == 2
    assert margins(server.rerank("0")) == pytest.approx(right["0"], abs=1e-6)
    maps = [Path(f"/proc/{pid}/maps").read_text().splitlines() for pid in first]
    copies = [{line.split()[4] for line in of if "memfd:prorank" in line} for of in maps]
    assert len(copies[0]) == 1
    assert copies[0] == copies[1], "each maps the same copy of the weights"

    with ThreadPoolExecutor(4) as pool:  # under requests: nobody notices, and every score is right
        answers = [pool.submit(server.rerank, query) for query in right]
        os.kill(first[0], signal.SIGKILL)
        for query, answer in zip(right, answers, strict=True):
            assert margins(answer.result()) == pytest.approx(right[query], abs=1e-6)
    server.until(lambda: server.alive() == 2)
    assert server.said("ended (SIGKILL)") == 1

    back = server.said("is back after")
    os.kill(max(server.workers), signal.SIGKILL)  # idle: it comes back before it is asked
    server.until(lambda: server.said("is back after") == back + 1)
    assert server.alive() == 2
    for pid in server.workers:  # a service manager's SIGTERM goes to every process of the service
        os.kill(pid, signal.SIGTERM)
    assert margins(server.rerank("3")) == pytest.approx(right["3"], abs=1e-6)
    assert server.said("ended (SIGKILL)") == server.said("ended (") == 2

    manifest = (model / "prorank.json").read_text()
    (model / "prorank.json").write_text("{")  # nobody can come back
    for pid in server.workers:
        os.kill(pid, signal.SIGKILL)
    server.until(lambda: server.status("/ready") == 503)
    assert server.status("/health") == 200
    refused = server.rerank()
    assert refused.status_code == 503
    assert refused.json()["detail"].startswith("the model's worker processes ended")
    assert int(refused.headers["retry-after"]) > 0
    assert 1 <= server.said("cannot be opened again") <= 2, "once a worker"
    (model / "prorank.json").write_text(manifest)
    server.until(lambda: server.status("/ready") == 200)
    assert margins(server.rerank("4")) == pytest.approx(right["4"], abs=1e-6)

    left = server.workers
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--processes", "0"], "argument --processes: expected a whole number of at least 1, got '0'"),
        (["--processes", "many"], "argument --processes: expected a whole number of at least 1, got 'many'"),
        (["--processes", str(available_cores() + 1)], f"more than the {available_cores()} cores of this machine"),
        (["--processes", "2", "--devices", "cpu"], "--processes: devices have a process each already"),
        (["--devices", "cpu,,cpu"], "--devices: expected names such as cuda:0"),
        (["--devices", "cuda:0,cuda:1", "--backend", "native"], "--devices: the native backend runs on the CPU"),
        (["--processes", "2", "--backend", "remote:m@http://127.0.0.1:9/v1"], "--processes: backend remote"),
    ],
)
def test_what_does_not_fit_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv: list[Any] = ["serve", "--model", str(small_native(tmp_path / "model")), *flags]
    try:
        code = main(argv)
    except SystemExit as ended:  # argparse
        code = int(ended.code or 0)
    assert code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.splitlines()[-1].startswith("prorank serve: error: ")
    assert "Traceback" not in said
