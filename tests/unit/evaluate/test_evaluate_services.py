"""Peers over HTTP, against a small local server: formats, retries, errors, and a key that never shows."""

from __future__ import annotations

import json
import logging
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from prorank.backends.retrying import seconds_asked
from prorank.evaluate.baselines import BASELINES, parse_baseline
from prorank.evaluate.http import ServiceError
from prorank.evaluate.llm import ListwiseSystem, PointwiseSystem, parse_permutation, window_starts
from prorank.evaluate.services import FORMATS, RerankServiceSystem

httpx = pytest.importorskip("httpx")
KEY = "sk-secret-12345"
DOCUMENTS = ["about cats", "about dogs and more dogs", "dogs"]


@pytest.fixture
def server():
    """A service that scores a document by how often it says "dog"; ``failures`` are answered first."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            service.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            if service.failures:
                status, text = service.failures.pop(0)
                self._send(status, text)
                return
            self._send(200, json.dumps(service.answer(self.path, body)))

        def _send(self, status, text):
            self.send_response(status)
            self.send_header("retry-after", "0.01")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.requests, service.failures, service.answer = [], [], answer
    threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
    service.url = f"http://127.0.0.1:{service.server_port}"
    yield service
    service.shutdown()
    service.server_close()


def dogs(text):
    return float(text.count("dog"))


def answer(path, body):
    if path.endswith("/chat/completions"):
        return chat(body)
    field = "data" if "top_k" in body else "results"
    scored = [{"index": i, "relevance_score": dogs(d)} for i, d in enumerate(body["documents"])]
    return {field: sorted(scored, key=lambda r: -r["relevance_score"]), "usage": {"total_tokens": 7}}


def chat(body):
    user = body["messages"][-1]["content"]
    if "logprobs" in body:
        listed = [
            {"token": "1", "logprob": dogs(user)},
            {"token": " 1", "logprob": -50},
            {"token": "0", "logprob": -1.0},
        ]
        content = {"content": [{"top_logprobs": listed}]}
        return {"choices": [{"message": {"content": "1"}, "logprobs": content}], "usage": {"total_tokens": 5}}
    passages = re.findall(r"\[(\d+)\] (.*)", user)
    order = sorted(passages, key=lambda p: -dogs(p[1]))
    return {
        "choices": [{"message": {"content": " > ".join(f"[{n}]" for n, _ in order)}}],
        "usage": {"total_tokens": 11},
    }


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_sends_and_reads_its_own_fields(server, form, monkeypatch):
    monkeypatch.setenv("PRORANK_PEER_KEY", KEY)
    monkeypatch.setenv(FORMATS[form].key, "the maker's own, which another server must not see")
    system = RerankServiceSystem(form, "some-model", server.url)
    margins, tokens = system.score("which animal", DOCUMENTS)
    assert margins.tolist() == [0.0, 2.0, 1.0]
    assert tokens == 7
    ((path, headers, body),) = server.requests
    assert path == FORMATS[form].path
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body["documents"] == DOCUMENTS
    assert body[FORMATS[form].limit] == 3
    assert KEY not in json.dumps(system.describe())


def test_a_passing_refusal_is_retried_and_a_final_one_reported_without_the_key(server, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PRORANK_PEER_KEY", KEY)
    system = RerankServiceSystem("jina", "m", server.url, pause=0.001)
    server.failures = [(429, "slow down"), (503, "busy")]
    assert system.score("q", DOCUMENTS).margins.tolist() == [0.0, 2.0, 1.0]
    assert len(server.requests) == 3
    server.failures = [(401, f"the key {KEY} is unknown")]
    with pytest.raises(ServiceError, match=r"answered 401: the key \[key\] is unknown") as caught:
        system.score("q", DOCUMENTS)
    server.failures = [(500, "no")] * 9
    with pytest.raises(ServiceError, match="answered 500"):
        system.score("q", DOCUMENTS)
    assert KEY not in caplog.text
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadTimeout])
def test_broken_connections_are_tried_again(server, monkeypatch, error):
    system = RerankServiceSystem("jina", "m", server.url, pause=0.001)
    post, calls = system.service._client.http.post, []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) == 1:
            raise error("not today")
        return post(*args, **options)

    monkeypatch.setattr(system.service._client.http, "post", failing)
    assert system.score("q", DOCUMENTS).margins.tolist() == [0.0, 2.0, 1.0]
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("asked", "seconds"), [("2", 2.0), ("0.5", 0.5), ("nan", None), ("inf", None), ("Wed, 21 Oct", None), (None, None)]
)
def test_how_long_a_service_asks_to_wait(asked, seconds):
    assert seconds_asked(asked) == seconds


def test_an_address_without_a_scheme_is_refused_before_anything_is_sent():
    with pytest.raises(ValueError, match="http://"):
        RerankServiceSystem("jina", "m", "localhost:8080")


def test_answers_out_of_format_are_errors(server):
    system = RerankServiceSystem("cohere", "m", server.url, retries=0)
    for wrong, reason in (
        ({"results": [{"index": 0, "relevance_score": 1}]}, "2 of 3 documents got no score"),
        ({"results": [{"index": 3, "relevance_score": 1}]}, "index 3 of 3 documents"),
        ({"data": []}, "KeyError"),
        ([], "did not answer with a JSON object"),
    ):
        server.answer = lambda *_, wrong=wrong: wrong
        with pytest.raises(ServiceError, match=reason):
            system.score("q", DOCUMENTS)
    server.failures = [(200, "<html>")]
    with pytest.raises(ServiceError, match="JSON object: <html>"):
        system.score("q", DOCUMENTS)


def test_nobody_there_is_an_error():
    system = RerankServiceSystem("cohere", "m", "http://127.0.0.1:9", retries=1, pause=0.001)
    with pytest.raises(ServiceError, match="ConnectError"):
        system.score("q", DOCUMENTS)


def test_the_real_services_want_a_key(monkeypatch):
    for name in ("COHERE_API_KEY", "PRORANK_PEER_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="set the environment variable COHERE_API_KEY"):
        RerankServiceSystem("cohere", "m")
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        ListwiseSystem("m")


def test_pointwise_takes_the_difference_of_log_probabilities(server):
    margins, tokens = PointwiseSystem("m", server.url + "/v1").score("q", DOCUMENTS)
    assert margins == pytest.approx([1.0, 3.0, 2.0], abs=1e-5)  # dogs - (-1)
    assert tokens == 15


def test_pointwise_without_the_other_label_takes_the_smallest_listed(server):
    listed = [{"token": "1", "logprob": -0.1}, {"token": "The", "logprob": -3.0}]
    server.answer = lambda *_: {"choices": [{"message": {}, "logprobs": {"content": [{"top_logprobs": listed}]}}]}
    with pytest.raises(ServiceError, match="not a chat completion"):
        PointwiseSystem("m", server.url).score("q", ["d"])
    server.answer = lambda *_: {
        "choices": [{"message": {"content": "1"}, "logprobs": {"content": [{"top_logprobs": listed}]}}]
    }
    assert PointwiseSystem("m", server.url).score("q", ["d"]).margins == pytest.approx([2.9])


def test_pointwise_without_log_probabilities_reads_the_answer(server):
    server.answer = lambda _, body: {
        "choices": [{"message": {"content": {"a": "1", "b": " 0", "c": "maybe"}[body["messages"][1]["content"][-1]]}}]
    }
    assert PointwiseSystem("m", server.url).score("q", ["a", "b", "c"]).margins.tolist() == [1.0, -1.0, 0.0]


def test_listwise_windows_carry_the_best_to_the_top(server):
    documents = [f"passage {i}" for i in range(49)] + ["dog dog"]
    margins, tokens = ListwiseSystem("m", server.url, window=20, step=10).score("q", documents)
    order = np.argsort(-margins)
    assert order[0] == 49
    assert order[1:].tolist() == list(range(49))
    assert tokens == 11 * len(server.requests) == 44
    assert ListwiseSystem("m", server.url).score("q", ["one"]).margins.tolist() == [0.0]


def test_window_starts():
    assert window_starts(100, 20, 10) == [80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert window_starts(25, 20, 10) == [5, 0]
    assert window_starts(20, 20, 10) == [0]
    assert window_starts(1, 20, 10) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[3] > [1] > [2]", [2, 0, 1]),
        ("[2] > [2] > [9]", [1, 0, 2]),
        ("3, 2", [2, 1, 0]),
        ("In 2024: [2]", [1, 0, 2]),
        ("no idea", [0, 1, 2]),
        ("", [0, 1, 2]),
    ],
)
def test_any_answer_becomes_a_permutation(text, expected):
    assert parse_permutation(text, 3) == expected


def test_baseline_names(tmp_path):
    (tmp_path / "peer.test.trec.gz").touch()
    assert parse_baseline(f"run:{tmp_path / 'peer.test.trec.gz'}").run == (
        "peer.test",
        str(tmp_path / "peer.test.trec.gz"),
    )
    assert parse_baseline("given:splade").run == ("splade", "given:splade")
    system = parse_baseline("openai-listwise:qwen@http://localhost:1/v1").load()
    assert system.describe()["service"] == "http://localhost:1/v1"
    assert system.name == "listwise-qwen"
    for wrong, reason in (("cohere", "names no model"), ("gpt:4", "is none of"), ("run:x.trec", "no run file")):
        with pytest.raises(ValueError, match=reason):
            parse_baseline(wrong)
    assert len(BASELINES) == 11
