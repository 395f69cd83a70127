"""Metrics, logs, ids, traces: everything one needs, and never a text or a key."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from standin import StandIn

from prorank.serve.logs import JsonFormatter

SECRETS = ("swordfish query", "swordfish document", "swordfish instruction", "swordfish-api-key")
BODY = {"query": SECRETS[0], "documents": [SECRETS[1], "b c"], "instruction": SECRETS[2]}


def value(text: str, name: str) -> float:
    return next(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + " "))


def test_metrics_count_what_happened(serve: Any, reranker: StandIn) -> None:
    http = serve(reranker)
    for _ in range(3):
        http.post("/v2/rerank", json=BODY)
    http.post("/v2/rerank", json={})
    http.post("/v1/rerank", json={"query": "q", "documents": ["word " * 100]})
    http.get("/made/up/path")
    text = http.get("/metrics").text
    assert value(text, 'prorank_requests_total{route="/v2/rerank",status="200"}') == 3
    assert value(text, 'prorank_requests_total{route="/v2/rerank",status="400"}') == 1
    assert value(text, 'prorank_requests_total{route="other",status="404"}') == 1
    assert value(text, 'prorank_request_seconds_count{route="/v2/rerank"}') == 4
    assert value(text, 'prorank_documents_total{model="fake"}') == 7
    assert value(text, 'prorank_documents_truncated_total{model="fake"}') == 1
    assert value(text, 'prorank_batch_tokens_count{model="fake"}') == 4
    assert value(text, 'prorank_queue_wait_seconds_count{model="fake"}') == 4
    assert value(text, 'prorank_queue_tokens{model="fake"}') == 0
    assert value(text, 'prorank_refused_total{reason="invalid"}') == 1
    assert value(text, 'prorank_prefix_shared_tokens_total{model="fake"}') > 0
    assert "prorank_prefix_cache_hits_total" in text
    assert "made/up" not in text
    assert not any(secret in text for secret in SECRETS)


def test_two_apps_in_a_process_keep_their_own_metrics(serve: Any) -> None:
    first, second = serve(StandIn("one")), serve(StandIn("two"))
    first.post("/v2/rerank", json=BODY)
    assert 'model="one"' not in second.get("/metrics").text


def test_request_ids(http: Any) -> None:
    assert http.get("/health", headers={"x-request-id": "trace-42.a"}).headers["x-request-id"] == "trace-42.a"
    for bad in ("", "a" * 65, 'x"; drop', "новый".encode(), "a b"):
        given = http.get("/health", headers={"x-request-id": bad}).headers["x-request-id"]
        assert len(given) == 32, bad
    answer = http.post("/v2/rerank", json=BODY, headers={"x-request-id": "mine"})
    assert answer.json()["id"] == "mine"


def test_logs_hold_facts_and_neither_texts_nor_keys(
    serve: Any, reranker: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    http = serve(reranker, api_keys=(SECRETS[3],))
    headers = {"authorization": f"Bearer {SECRETS[3]}", "x-request-id": "abc"}

    def fail() -> None:
        raise RuntimeError(f"could not score {SECRETS[1]}")

    with caplog.at_level(logging.DEBUG):
        assert http.post("/v1/rerank", json=BODY, headers=headers).status_code == 200
        assert http.post("/v1/rerank", json=BODY | {"top_n": SECRETS[1]}, headers=headers).status_code == 422
        assert (
            http.post("/v1/rerank", json=BODY, headers={"authorization": "Bearer swordfish-wrong"}).status_code == 401
        )
        reranker.fail = fail
        assert http.post("/v1/rerank", json=BODY, headers=headers).status_code == 500
    formatter = JsonFormatter()
    lines = [formatter.format(record) for record in caplog.records if record.name.startswith("prorank")]
    assert not any("swordfish" in line for line in lines), lines
    requests = [json.loads(line) for line in lines if json.loads(line)["message"] == "request"]
    assert [one["status"] for one in requests] == [200, 422, 401, 500]
    assert requests[0]["request_id"] == "abc"
    assert requests[0] | {"route": "/v1/rerank", "documents": 2, "model": "fake", "level": "info"} == requests[0]
    assert requests[0]["tokens"] > 0
    broken = next(json.loads(line) for line in lines if json.loads(line)["message"] == "unexpected error")
    assert broken["error"] == "RuntimeError"
    assert any("standin.py" in place for place in broken["where"])


def test_spans(serve: Any, reranker: StandIn) -> None:
    pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is part of the extra 'otel'")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    http = serve(reranker, telemetry=True)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert http.post("/v2/rerank", json=BODY, headers={"traceparent": parent}).status_code == 200
    spans = exporter.get_finished_spans()  # newer FastAPI adds spans of its own
    (span,) = [one for one in spans if one.instrumentation_scope.name == "prorank.serve"]
    assert span.name == "POST /v2/rerank"
    assert format(span.context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c"
    assert span.attributes["prorank.documents"] == 2
    assert not any("swordfish" in str(item) for item in span.attributes.items())


PROGRAM = """
    import sys, threading
    sys.path.insert(0, {here!r})
    from standin import StandIn
    from prorank.serve.app import create_app
    from prorank.serve.logs import setup_logging
    from prorank.serve.server import make_server
    setup_logging("info")
    server = make_server(create_app(StandIn(seconds_per_token=0.02)), port={port})
    server.run()
"""


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop(sig: signal.Signals) -> None:
    """SIGTERM: what is accepted is answered, what is new is refused in its format, the status is 0."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    code = textwrap.dedent(PROGRAM.format(here=str(Path(__file__).parent), port=port))
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    if httpx.get(f"{url}/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                time.sleep(0.05)
            from concurrent.futures import ThreadPoolExecutor

            body = {"query": "q", "documents": [f"a b c {i}" for i in range(15)]}  # 1.5 s of scoring
            with ThreadPoolExecutor(2) as pool:
                accepted = [pool.submit(httpx.post, f"{url}/v2/rerank", json=body, timeout=30) for _ in range(2)]
                time.sleep(0.5)
                os.kill(process.pid, sig)
                time.sleep(0.3)
                new = httpx.post(f"{url}/v2/rerank", json=body)
                not_ready = httpx.get(f"{url}/ready")
                alive = httpx.get(f"{url}/health")
                assert [future.result().status_code for future in accepted] == [200, 200]
            assert new.status_code == 503
            assert set(new.json()) == {"message", "id"}
            assert new.headers["retry-after"]
            assert not_ready.status_code == 503
            assert alive.status_code == 200
            assert process.wait(15) == 0
        finally:
            process.kill()
        lines = [json.loads(line) for line in process.stderr or ()]
    assert sum(line["message"] == "request" and line.get("status") == 200 for line in lines) >= 2
    assert any("stopping" in line["message"] for line in lines)


def test_the_pair_caches_hits_are_counted(serve: Any, fake_reranker: Any) -> None:
    from prorank.pair_cache import open_pair_cache

    fake_reranker.pair_cache = open_pair_cache("memory")
    http = serve(fake_reranker)
    body = {"query": "q", "documents": ["a", "b", "c"]}
    first, second = http.post("/v1/rerank", json=body).json(), http.post("/v1/rerank", json=body).json()
    assert first["results"] == second["results"]
    metrics = http.get("/metrics").text
    assert 'prorank_pair_cache_hits_total{model="fake"} 3.0' in metrics
    assert 'prorank_pair_cache_misses_total{model="fake"} 3.0' in metrics
