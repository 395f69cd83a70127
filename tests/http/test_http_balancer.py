"""Two servers behind HAProxy with the configuration of examples/: one that drains gets nothing, and nobody notices."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from standin import StandIn

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "haproxy.cfg"
BODY = {"query": "one", "documents": ["one two", "three"]}


def test_a_server_that_is_not_ready_gets_no_requests(live: Callable[..., Any], tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        pytest.skip("HAProxy is not installed: apt-get install haproxy")
    servers = [live(StandIn()), live(StandIn())]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        front = free.getsockname()[1]
    text = CONFIG.read_text("utf-8").replace("inter 2s", "inter 100ms").replace(":8080", f":{front}")
    for port, server in zip((":8081", ":8082"), servers, strict=True):
        assert port in text
        text = text.replace(port, f":{server.port}")
    (tmp_path / "haproxy.cfg").write_text(text, "utf-8")
    balancer = subprocess.Popen([haproxy, "-q", "-db", "-f", str(tmp_path / "haproxy.cfg")])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{front}", transport=httpx.HTTPTransport(retries=5)) as client:
            wait_for(lambda: client.get("/ready").status_code == 200)
            direct = httpx.post(f"{servers[0].url}/v1/rerank", json=BODY).json()["results"]
            for _ in range(4):
                assert client.post("/v1/rerank", json=BODY).json()["results"] == direct
            served = [count(server) for server in servers]
            assert min(served) >= 1, "both had some"
            servers[0].app.service.draining = True
            for _ in range(10):  # the first of them may still be sent there: it is retried with the other
                assert client.post("/v1/rerank", json=BODY).status_code == 200
                time.sleep(0.02)
            wait_for(lambda: httpx.get(f"{servers[0].url}/ready").status_code == 503)
            before = count(servers[0])
            for _ in range(5):
                assert client.post("/v1/rerank", json=BODY).status_code == 200
            assert count(servers[0]) == before
            servers[0].app.service.draining = False
    finally:
        balancer.terminate()
        balancer.wait(10)


def count(server: Any) -> int:
    """Rerank requests that a server has answered, refusals included."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return int(
        sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("prorank_requests_total{") and "rerank" in line
        )
    )


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
