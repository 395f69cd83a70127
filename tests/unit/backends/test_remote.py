"""The remote backend over a real socket: what is asked, what is read out, what is retried, what is refused."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from prorank.backends.remote import KEY_VARIABLE, RemoteBackend, RemoteError
from prorank.scoring import Backend, margins_of, score_groups
from prorank.types import EncodedGroup
from testkit.completions_server import LABELS, CompletionsServer, margin

httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install 'prorank[remote]'")

WORDS = ("0", "1")
KEY = "sk-very-secret-123"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    running = CompletionsServer()
    yield running
    running.stop()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the backend would have made."""
    made: list[float] = []
    monkeypatch.setattr("prorank.backends.retrying.time.sleep", made.append)
    monkeypatch.setattr("prorank.backends.retrying.random.uniform", lambda low, _: low)
    return made


def group(rows: int = 7, prefix: int = 9, seed: int = 0) -> EncodedGroup:
    rng = np.random.default_rng(seed)
    draw = lambda n: [int(i) for i in rng.integers(0, 40, n)]  # noqa: E731
    return EncodedGroup(draw(prefix), [draw(1 + 3 * row) for row in range(rows)])


def wanted(rows: EncodedGroup) -> list[float]:
    return [margin([*rows.prefix_ids, *own]) for own in rows.own_ids]


def open_backend(server: CompletionsServer, **options: Any) -> RemoteBackend:
    return RemoteBackend(server.url, "tiny", LABELS, **{"label_words": WORDS, "pause": 0.0, **options})


@pytest.mark.parametrize("form", ["token_ids", "texts", "content"])
@pytest.mark.parametrize("together", [1, 3, 8])
def test_margins_are_the_models(server: CompletionsServer, form: str, together: int) -> None:
    server.form = form
    with open_backend(server, prompts_per_request=together) as backend:
        assert isinstance(backend, Backend)
        got = backend.label_logits(group())
        assert got.shape == (7, 2)
        assert got.dtype == np.float32
        assert (got < 0).all(), "log-probabilities"
        np.testing.assert_allclose(margins_of(got), wanted(group()), atol=1e-5)
        assert len(server.requests) == -(-7 // together)
        assert backend.label_logits(EncodedGroup([1], [])).shape == (0, 2)


def test_what_is_asked(server: CompletionsServer) -> None:
    rows = group(rows=3)
    with open_backend(server, top_logprobs=33, options={"repetition_penalty": 1.0}) as backend:
        backend.label_logits(rows)
    (body,) = server.requests
    assert body == {
        "model": "tiny",
        "prompt": [[*rows.prefix_ids, *own] for own in rows.own_ids],
        "max_tokens": 1,
        "temperature": 1,
        "top_p": 1,
        "logprobs": 33,
        "return_tokens_as_token_ids": True,
        "repetition_penalty": 1.0,
    }
    assert server.headers[0]["path"] == "/v1/completions"
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("suffix", ["", "/", "/completions", "/completions/"])
def test_the_address_may_end_anywhere(server: CompletionsServer, suffix: str) -> None:
    with RemoteBackend(server.url + suffix, "tiny", LABELS) as backend:
        backend.label_logits(group(rows=1))
    with RemoteBackend(server.url.removesuffix("/v1"), "tiny", LABELS) as backend:
        backend.label_logits(group(rows=1))
    assert [headers["path"] for headers in server.headers] == ["/v1/completions"] * 2


def test_batches_and_answers_in_any_order(server: CompletionsServer) -> None:
    server.change = lambda answer: {**answer, "choices": answer["choices"][::-1]}
    rows = group(rows=12)
    order = np.random.default_rng(1).permutation(12)
    with open_backend(server, prompts_per_request=5) as backend:
        np.testing.assert_allclose(margins_of(backend.label_logits(rows)), wanted(rows), atol=1e-5)
        shuffled = rows._replace(own_ids=[rows.own_ids[i] for i in order])
        np.testing.assert_allclose(margins_of(backend.label_logits(shuffled)), np.array(wanted(rows))[order], atol=1e-5)
        groups = [rows, group(seed=1), group(rows=1, seed=2)]
        for got, each in zip(score_groups(backend, groups, batch_tokens=64), groups, strict=True):
            np.testing.assert_allclose(got, wanted(each), atol=1e-5)


def test_a_label_that_is_not_returned_is_an_error(server: CompletionsServer) -> None:
    with (
        open_backend(server, top_logprobs=1, prompts_per_request=1) as backend,
        pytest.raises(RemoteError, match=r"row 0: label token (5 \('0'\)|6 \('1'\)) is not among the 1 most likely"),
    ):
        backend.label_logits(group(rows=1))


def test_a_label_without_probability_is_an_error(server: CompletionsServer) -> None:
    def forbid(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][1]["logprobs"]["top_logprobs"][0]["token_id:6"] = -9999.0
        return answer

    server.change = forbid
    with open_backend(server) as backend, pytest.raises(RemoteError, match=r"row 1: label token 6 \('1'\) is not"):
        backend.label_logits(group(rows=2))


def test_texts_need_label_words_and_must_be_exact(server: CompletionsServer) -> None:
    server.form = "texts"
    with (
        open_backend(server, label_words=None) as backend,
        pytest.raises(RemoteError, match=r"answers with texts instead of token ids .* give label_words"),
    ):
        backend.label_logits(group(rows=1))
    with open_backend(server, label_words=("0", "w1")) as backend, pytest.raises(RemoteError, match=r"\('w1'\) is not"):
        backend.label_logits(group(rows=1))  # " w1" is another token


def test_two_tokens_of_the_same_text_are_an_error(server: CompletionsServer) -> None:
    def same_text(answer: dict[str, Any]) -> dict[str, Any]:
        for entry in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            del entry["id"]
            entry["token"] = entry["token"].replace(" w12", "1")
        return answer

    server.form, server.change = "content", same_text
    with (
        open_backend(server, top_logprobs=40) as backend,
        pytest.raises(RemoteError, match="2 returned tokens read like label token 6"),
    ):
        backend.label_logits(group(rows=1))


def test_refusals_that_may_pass_are_retried(server: CompletionsServer, pauses: list[float]) -> None:
    server.script = [429, 503, None, (500, {"Retry-After": "7"}), 200]
    with open_backend(server, pause=0.5) as backend:
        np.testing.assert_allclose(margins_of(backend.label_logits(group(rows=2))), wanted(group(rows=2)), atol=1e-5)
    assert len(server.requests) == 5
    assert pauses == [0.5, 1.0, 2.0, 7.0]


def test_retries_end(server: CompletionsServer, pauses: list[float]) -> None:
    server.script = [503] * 9
    with open_backend(server, retries=2) as backend, pytest.raises(RemoteError, match="answered 503 to try 3"):
        backend.label_logits(group(rows=2))
    assert len(server.requests) == 3
    assert len(pauses) == 2


def test_nobody_there(pauses: list[float]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        RemoteBackend(f"http://127.0.0.1:{port}/v1", "tiny", LABELS, retries=3) as backend,
        pytest.raises(RemoteError, match="no answer after 4 tries: ConnectError"),
    ):
        backend.label_logits(group(rows=1))
    assert pauses == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("error", ["ConnectError", "ConnectTimeout", "ReadTimeout", "RemoteProtocolError"])
def test_broken_connections_are_tried_again(
    server: CompletionsServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    with open_backend(server, pause=0.5) as backend:
        post, calls = backend._client.http.post, []

        def failing(*args: Any, **options: Any) -> Any:
            calls.append(args)
            if len(calls) == 1:
                raise getattr(httpx, error)("not today")
            return post(*args, **options)

        monkeypatch.setattr(backend._client.http, "post", failing)
        assert backend.label_logits(group(rows=1)).shape == (1, 2)
    assert pauses == [0.5]


@pytest.mark.parametrize("asked", ["nan", "inf", "Wed, 21 Oct 2026 07:28:00 GMT", "soon", "-3"])
def test_pauses_that_are_none(server: CompletionsServer, pauses: list[float], asked: str) -> None:
    server.script = [(503, {"Retry-After": asked}), 200]
    with open_backend(server, pause=0.5) as backend:
        assert backend.label_logits(group(rows=1)).shape == (1, 2)
    assert pauses == [0.0 if asked == "-3" else 0.5]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_other_refusals_are_not_retried(server: CompletionsServer, pauses: list[float], status: int) -> None:
    server.script = [status]
    with open_backend(server) as backend, pytest.raises(RemoteError, match=f"answered {status} to try 1"):
        backend.label_logits(group(rows=4))
    assert len(server.requests) == 1
    assert not pauses


@pytest.mark.parametrize("quiet", [False, True])
def test_servers_of_one_prompt_are_found_out(server: CompletionsServer, quiet: bool) -> None:
    if quiet:  # it answers, but the first prompt only
        server.change = lambda answer: {**answer, "choices": answer["choices"][:1]}
    else:
        server.one_prompt_only = True
    with open_backend(server, prompts_per_request=4, concurrency=1) as backend:
        np.testing.assert_allclose(margins_of(backend.label_logits(group(rows=4))), wanted(group(rows=4)), atol=1e-5)
        assert len(server.requests) == 5
        backend.label_logits(group(rows=4))
        assert [isinstance(request["prompt"][0], list) for request in server.requests[5:]] == [False] * 4


def test_requests_under_way_are_bounded(server: CompletionsServer) -> None:
    server.hold = threading.Barrier(3)
    with open_backend(server, concurrency=3, prompts_per_request=1) as backend:
        np.testing.assert_allclose(margins_of(backend.label_logits(group(rows=9))), wanted(group(rows=9)), atol=1e-5)
    assert server.most_in_flight == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>", "did not answer with a JSON object: <html>"),
        ([1], "did not answer with a JSON object"),
        ({"choices": []}, "answer to row 0 is not a completion"),
        ({"choices": [{"index": 0, "text": "1", "logprobs": None}]}, "holds no log-probabilities"),
        ({"choices": [{"index": 0, "logprobs": {"top_logprobs": [{"token_id:5": None}]}}]}, "no log-probabilities"),
    ],
)
def test_other_answers_are_errors(server: CompletionsServer, answer: Any, message: str) -> None:
    server.change = lambda _: answer
    with open_backend(server) as backend, pytest.raises(RemoteError, match=message):
        backend.label_logits(group(rows=1))


def test_the_key_is_sent_and_never_shown(
    server: CompletionsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pauses: list[float]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with caplog.at_level(logging.DEBUG):
        with open_backend(server) as backend:
            backend.label_logits(group(rows=1))
            server.script = [403]  # the stand-in repeats the header in its refusal
            with pytest.raises(RemoteError) as refused:
                backend.label_logits(group(rows=1))
            shown = f"{refused.value!r} {backend!r} {backend.name}"
        with open_backend(server, api_key="another") as backend:
            backend.label_logits(group(rows=1))
    assert [headers["Authorization"] for headers in server.headers] == [f"Bearer {KEY}"] * 2 + ["Bearer another"]
    assert "[key]" in shown
    assert KEY not in shown + caplog.text
    assert not pauses


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("localhost:8000", {}, "url must be like http://"),
        ("http://user:word@host/v1", {}, "url must hold no user name or password"),
        ("http://host", {"concurrency": 0}, "concurrency must be at least 1"),
        ("http://host", {"top_logprobs": 0}, "top_logprobs must be at least 1"),
        ("http://host", {"prompts_per_request": 0}, "prompts_per_request must be at least 1"),
        ("http://host", {"retries": -1}, "must not be negative"),
    ],
)
def test_arguments_out_of_range_are_named(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        RemoteBackend(url, "tiny", LABELS, **options)
    assert "word" not in str(error.value).replace("password", "")
    with pytest.raises(ValueError, match="model: expected the name"):
        RemoteBackend("http://host", "", LABELS)
