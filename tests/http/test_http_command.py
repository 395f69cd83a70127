"""`prorank serve` itself: flags, errors before anything is loaded, and a real start with the built-in base."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from standin import StandIn

from prorank.cli.main import main
from prorank.cli.serve import _config, _sources
from prorank.serve.config import ServeConfig


def parsed(*flags: str) -> Any:
    from prorank.cli.main import build_parser

    return build_parser("serve").parse_args(flags)


def test_flags_become_configuration(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("# the team's\nfirst-secret-key\n\nsecond-secret-key\n")
    args = parsed(
        "--api-key-file", str(keys), "--max-documents", "7", "--request-timeout", "2.5", "--alias", "rerank-v3.5=a",
        "--max-model-memory", "1.5", "--instruction", "be strict", "--no-strict-models", "--auto-truncate",
    )  # fmt: skip
    assert _config(args) == ServeConfig(
        api_keys=("first-secret-key", "second-secret-key"),
        max_documents=7,
        request_timeout=2.5,
        aliases=(("rerank-v3.5", "a"),),
        max_model_bytes=3 * 2**29,
        instruction="be strict",
        strict_models=False,
        auto_truncate=True,
    )
    assert _config(parsed()) == ServeConfig()


def test_every_limit_is_a_flag_of_the_same_name() -> None:
    import dataclasses

    flags = vars(parsed())
    elsewhere = {"api_keys", "aliases", "max_model_bytes", "max_buffered_bytes"}
    assert {one.name for one in dataclasses.fields(ServeConfig)} - elsewhere <= set(flags)


def test_model_names() -> None:
    assert _sources(None) == {None: None}
    assert _sources(["some/folder"]) == {None: "some/folder"}
    assert _sources(["a=x", "some/good"]) == {"a": "x", "good": "some/good"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "99999"], "--port"),
        (["--model", "a=x", "--model", "a=y"], "two models are called 'a'"),
        (["--alias", "nonsense"], "--alias must be NAME=MODEL"),
        (["--request-timeout", "-1"], "request_timeout must be greater than 0"),
        (["--api-key-file", "/does/not/exist"], "/does/not/exist"),
        (["--model", "no-such-model-anywhere"], "no-such-model-anywhere"),
    ],
)
def test_wrong_flags_are_one_line_and_status_2(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("prorank serve: error: ")
    assert message in said
    assert said.count("\n") == 1


def test_an_empty_key_file_is_an_error_and_not_an_open_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").write_text("# nothing yet\n")
    assert main(["serve", "--api-key-file", str(tmp_path / "keys")]) == 2
    assert "holds no key" in capsys.readouterr().err


def test_rank_through_a_server(
    live: Any, reranker: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = live(reranker, api_keys=("the-right-key",))
    file = tmp_path / "passages.jsonl"
    file.write_text('{"_id": "d0", "text": "bread"}\n{"_id": "d1", "text": "a harmless piece"}\n')
    flags = ["rank", "--server", server.url, "--query", "vaccines", "--documents", str(file), "--format", "jsonl"]
    assert main(flags) == 2
    assert capsys.readouterr().err.startswith("prorank rank: error: the server answered 401")
    monkeypatch.setenv("PRORANK_API_KEY", "the-right-key")
    assert main([*flags, "--instruction", "be brief"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    texts = ["bread", "a harmless piece"]
    margins = reranker.margins("vaccines", texts, "be brief")
    assert [row["doc_id"] for row in rows] == [f"d{i}" for i in reranker.order("vaccines", texts, "be brief")]
    assert [row["margin"] for row in rows] == [pytest.approx(float(margins[row["index"]]), abs=1e-5) for row in rows]
    assert main([*flags, "--dtype", "float32"]) == 2
    assert "--dtype says how to load a local model" in capsys.readouterr().err
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert main(["rank", "--server", "http://127.0.0.1:9", "--query", "q", "--documents", str(file)]) == 2
    assert "no answer from http://127.0.0.1:9" in capsys.readouterr().err


def test_start_answer_stop(tiny_llama_dir: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    flags = ["--model", f"tiny={tiny_llama_dir}", "--dtype", "float32", "--threads", "1", "--port", str(port)]
    command = [sys.executable, "-m", "prorank.cli.main", "serve", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.poll() is None, process.stderr.read() if process.stderr else ""
                    assert time.monotonic() < deadline
                time.sleep(0.1)
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/rerank", json={"query": "q", "documents": ["a", "b"]}, timeout=60
            ).json()
            assert answer["model"] == "tiny"
            assert {row["index"] for row in answer["results"]} == {0, 1}
            assert process.poll() is None
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(30) == 0
            lines = [json.loads(line) for line in process.stderr or ()]
            assert any(line["message"] == "request" and line["route"] == "/v1/rerank" for line in lines)
        finally:
            process.kill()
