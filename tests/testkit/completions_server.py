"""A stand-in for an OpenAI-compatible completions server, on a real socket: its model is a hash of the token ids."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

VOCABULARY = 40
LABELS = (5, 6)
WORDS = {5: "0", 6: "1"}


def logits(ids: Sequence[int]) -> np.ndarray:
    """The model: one logit for each token of the vocabulary, the labels among the larger ones."""
    rng = np.random.default_rng(zlib.crc32(bytes(ids)))
    values = rng.normal(size=VOCABULARY)
    values[list(LABELS)] += 4
    return values


def margin(ids: Sequence[int]) -> float:
    values = logits(ids)
    return float(values[LABELS[1]] - values[LABELS[0]])


def word(token: int) -> str:
    return WORDS.get(token, f" w{token}")


class CompletionsServer:
    """Answers ``POST /v1/completions``; remembers what it was asked.

    Args:
        model: token ids -> logits of the vocabulary.
        form: how tokens are written: ``token_ids`` (vLLM), ``texts`` (SGLang, OpenAI) or ``content`` (llama.cpp).
    """

    def __init__(self, form: str = "token_ids", model: Callable[[Sequence[int]], np.ndarray] = logits) -> None:
        self.form, self.model = form, model
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.script: list[Any] = []
        """What comes before ordinary answers: a status, (status, headers), or None to hang up."""
        self.change: Callable[[dict[str, Any]], Any] = lambda answer: answer
        """Changes an ordinary answer."""
        self.one_prompt_only = False
        self.hold: threading.Barrier | None = None
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body)
            self.headers.append({**handler.headers, "path": handler.path})
            turn = self.script.pop(0) if self.script else 200
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self.hold is not None:
            self.hold.wait(10)
        with self._lock:
            self.in_flight -= 1
        if turn is None:
            handler.close_connection = True
            handler.connection.close()
            return
        status, headers = turn if isinstance(turn, tuple) else (turn, {})
        several = isinstance(body["prompt"][0], list)
        if status == 200 and several and self.one_prompt_only:
            status = 400
        if status == 200:
            answer: Any = self.change(self._answer(body, body["prompt"] if several else [body["prompt"]]))
        else:
            answer = {"error": f"status {status} for {handler.headers.get('Authorization')}"}
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def _answer(self, body: dict[str, Any], prompts: list[list[int]]) -> dict[str, Any]:
        choices = []
        for index, ids in enumerate(prompts):
            values = np.asarray(self.model(ids), dtype=np.float64)
            values = values - np.log(np.exp(values - values.max()).sum()) - values.max()
            best = np.argsort(-values)[: body["logprobs"]]
            if self.form == "content":
                listed = [{"id": int(t), "token": word(t), "logprob": float(values[t])} for t in best]
                logprobs: Any = {"content": [{"token": word(best[0]), "top_logprobs": listed}]}
            else:
                name = word if self.form == "texts" else "token_id:{}".format
                logprobs = {"top_logprobs": [{name(int(t)): float(values[t]) for t in best}]}
            choices.append({"index": index, "text": word(best[0]), "logprobs": logprobs, "finish_reason": "length"})
        return {"object": "text_completion", "model": body["model"], "choices": choices}
