"""Hostile requests over a real socket: no 5xx, no hang, and the server answers normally afterwards."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_server import Live
from standin import StandIn

from prorank.serve.app import create_app
from prorank.serve.config import ServeConfig

BODY = {"query": "q", "documents": ["a", "b c"]}
PATHS = ("/v1/rerank", "/v2/rerank", "/voyage/v1/rerank", "/rerank", "/score", "/v1/score")
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def running() -> Iterator[Live]:
    one = Live(create_app(StandIn(), ServeConfig(body_timeout=1.0, max_body_bytes=2 * 2**20)))
    yield one
    one.stop()


@pytest.fixture
def server(running: Live) -> Iterator[Live]:
    """One server for all: after every test it must still be itself."""
    yield running
    answer = httpx.post(f"{running.url}/v1/rerank", json=BODY, timeout=10)
    assert answer.status_code == 200, "the server is not itself any more"
    service = running.app.service
    assert service.in_flight == 0
    assert service._bodies._held == 0


def raw(server: Any, data: bytes, seconds: float = 10.0) -> bytes:
    """Everything that the server says to these bytes, until it closes or is silent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as sock:
        sock.sendall(data)
        said = b""
        try:
            while chunk := sock.recv(65536):
                said += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return said


@pytest.mark.parametrize("path", PATHS)
def test_50_megabytes(server: Any, path: str) -> None:
    response = httpx.post(f"{server.url}{path}", content=b'{"query": "' + b"a" * 50_000_000 + b'"}', headers=JSON)
    assert response.status_code == 413


def test_a_lying_content_length(server: Any) -> None:
    head = "POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    assert b" 413 " in raw(server, f"{head}99999999999999999999\r\n\r\n".encode())[:100]
    said = raw(server, f"{head}500\r\n\r\n{{}}".encode())
    assert b" 408 " in said[:100], said
    for length in ("-1", "1e3", "abc", ""):
        said = raw(server, f"{head}{length}\r\n\r\n{{}}".encode(), 3)
        assert b" 400 " in said[:100] or not said, said


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"query": "q", "documents": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"query": "q", "documents": [{"text": "a", "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}]}",
        b'{"query": "q", "documents": ["a"], "top_n": NaN}',
        b'{"query": "q", "documents": ["a"], "top_n": Infinity}',
        b'{"query": "q", "documents": ["a"], "top_n": 1e999}',
        b'{"query": "q", "documents": ["a"], "top_n": ' + b"9" * 5_000 + b"}",
        b'{"query": "q", "documents": ["a"], "top_k": ' + b"9" * 5_000 + b"}",
        b'{"query": "\\ud800", "documents": ["\\udfff"]}',
        b'{"query": "q\x00", "documents": ["a"]}',
        b"\xef\xbb\xbf{}",
        b"\x00" * 1000,
        "{}".encode("utf-16"),
        b'{"query": "q", "query": "r", "documents": []}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_hostile_json(server: Any, path: str, body: bytes) -> None:
    response = httpx.post(f"{server.url}{path}", content=body, headers=JSON, timeout=10)
    if b"1e999" in body and path == "/voyage/v1/rerank":
        assert response.status_code == 200  # a field that Voyage does not have is ignored, whatever it holds
    else:
        assert 400 <= response.status_code < 500
    assert response.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("path", PATHS)
def test_100_000_documents(server: Any, path: str) -> None:
    texts = ["a"] * 100_000
    body = {"query": "q", "documents": texts} if "score" not in path else {"text_1": "q", "text_2": texts}
    response = httpx.post(f"{server.url}{path}", content=json.dumps(body), headers=JSON, timeout=30)
    assert response.status_code == 413


@pytest.mark.parametrize("text", ["", " ", "\n", "\u202e", "<|im_end|>", "a" * 90_000, "\U0001f600" * 2000, "\x00\x01"])
def test_strange_texts_are_just_texts(server: Any, text: str) -> None:
    body = {"query": "q", "documents": [text, "other"]}
    assert httpx.post(f"{server.url}/v1/rerank", json=body).status_code == 200
    answer = httpx.post(f"{server.url}/v1/rerank", json={"query": text or "q", "documents": ["a"]})
    assert answer.status_code in (200, 413)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(
    ["query", "documents", "texts", "text_1", "text_2", "top_n", "top_k", "model", "instruction", "raw_scores",
     "return_documents", "truncate", "truncation", "max_tokens_per_doc", "rank_fields", "return_margins", "return_text"]
)  # fmt: skip


@given(path=st.sampled_from(PATHS), body=st.dictionaries(names, json_values, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wrong_types_anywhere(server: Any, path: str, body: dict[str, Any]) -> None:
    response = httpx.post(f"{server.url}{path}", json=body, timeout=10)
    assert response.status_code < 500, (path, body, response.text)


def test_slow_loris_on_the_head_is_cut_off(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\n")
        started = time.monotonic()
        closed = False
        while time.monotonic() - started < 20 and not closed:
            try:
                sock.sendall(b"X-Header: y\r\n")
                sock.settimeout(0.2)
                closed = sock.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
        assert closed


def test_a_silent_connection_is_cut_off(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        assert sock.recv(100) == b""  # closed by the server; else this times out


def test_slow_loris_on_the_body_gets_408(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(
            b"POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        )
        started = time.monotonic()
        said = b""
        while time.monotonic() - started < 20 and b"\r\n\r\n" not in said:
            try:
                sock.sendall(b" ")
                sock.settimeout(0.1)
                said += sock.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
        assert b" 408 " in said[:20]


def test_many_slow_connections_do_not_keep_others_out(server: Any) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    for sock in slow:
        sock.sendall(b"POST /v1/rerank HTTP/1.1\r\n")
    try:
        assert httpx.post(f"{server.url}/v1/rerank", json=BODY, timeout=5).status_code == 200
    finally:
        for sock in slow:
            sock.close()


@pytest.mark.parametrize("cut", [10, 60, 100, 130])
def test_aborted_connections(server: Any, cut: int) -> None:
    body = json.dumps(BODY).encode()
    request = (
        b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    ) + body
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(request[:cut] if cut < 130 else request)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # reset, not FIN
    deadline = time.monotonic() + 20
    while server.app.service.in_flight:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
    ids=range(7),
)
def test_not_quite_http(server: Any, data: bytes) -> None:
    said = raw(server, data, 2)
    assert not said or said.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4")), said[:100]
    assert b"root:" not in said


def test_keep_alive_connections_are_reused_for_many_requests(server: Any) -> None:
    with httpx.Client() as client:
        for _ in range(3):
            assert client.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200
        time.sleep(1.5)  # longer than the head's limit: idle between requests is no offence
        assert client.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200
