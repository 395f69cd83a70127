"""A model behind someone else's server (vLLM, SGLang, llama.cpp): token ids out, numbers for the two labels back.

Behind ``/completions`` is a language model, which is asked for one token with the most likely alternatives: the
log-probabilities of the two label tokens stand in for their logits, and their difference is the same margin. Behind
vLLM's ``/classify`` or ``/pooling`` is a sequence classifier (``prorank export --to seq-cls``), whose one output is the
margin. What cannot be read with certainty is an error, never a guess.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt

from prorank.backends.remote_completions import CompletionsWire
from prorank.backends.remote_pooling import POOLING_PATHS, PoolingWire
from prorank.backends.remote_wire import Pair, RemoteError, Wire
from prorank.backends.retrying import CallError, RetryingClient
from prorank.scoring import DEFAULT_BATCH_TOKENS_GPU, Capabilities
from prorank.types import EncodedGroup

__all__ = ["KEY_VARIABLE", "RemoteBackend", "RemoteError"]

KEY_VARIABLE = "PRORANK_REMOTE_KEY"
_TOO_MUCH = {400, 413, 422}  # what a server that takes one prompt only says to several


class RemoteBackend:
    """Scores through a server's endpoint. Safe to call from several threads.

    Args:
        url: up to and including the version, such as ``http://localhost:8000/v1``, for completions; for a sequence
            classifier the endpoint itself, such as ``http://localhost:8000/classify``.
        model: the name the server knows it by.
        label_ids: (irrelevant, relevant) token ids.
        label_words: their texts; needed where the server answers with texts instead of ids.
        api_key: sent as a bearer token; default: the environment variable ``PRORANK_REMOTE_KEY``; never logged.
        timeout: seconds for one request.
        concurrency: requests under way at once, of all calls together.
        retries: further tries after 408, 429, 5xx, or where no connection was made, it broke, or no answer came in
            time; with growing pauses.
        pause: seconds before the first retry, doubled each time; a server's own ``Retry-After`` counts instead.
        top_logprobs: alternatives asked for; servers have limits of their own (vLLM: ``--max-logprobs``, 20).
        prompts_per_request: rows sent together; a server that takes one prompt only is found out and gets one.
        options: further fields of the request, such as ``{"repetition_penalty": 1}``.

    Raises:
        ValueError: an argument is out of range, or the endpoint takes texts.
        ImportError: httpx is not installed.
    """

    prefix_hits = 0
    """Here prompts go out whole; most servers keep common beginnings in a cache of their own."""
    max_positions: int | None = None

    def __init__(
        self,
        url: str,
        model: str,
        label_ids: tuple[int, int],
        *,
        label_words: tuple[str, str] | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        concurrency: int = 8,
        retries: int = 4,
        pause: float = 0.5,
        top_logprobs: int = 20,
        prompts_per_request: int = 8,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        limits = {"concurrency": concurrency, "top_logprobs": top_logprobs, "prompts_per_request": prompts_per_request}
        for name, value in limits.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if retries < 0 or timeout <= 0 or pause < 0:
            raise ValueError(f"retries, timeout and pause must not be negative, got {retries}, {timeout}, {pause}")
        if not model:
            raise ValueError("model: expected the name that the server knows the model by")
        self.url, self._shown = _endpoint(url)
        self.model = model
        self.name = f"remote-{model}"
        self.capabilities = Capabilities(batch_tokens=DEFAULT_BATCH_TOKENS_GPU)
        self.label_ids = label_ids
        self._per_request = prompts_per_request
        endpoint = urlsplit(self.url).path.rpartition("/")[2]
        self._wire: Wire = (
            PoolingWire(self._shown, model, endpoint, options or {})
            if endpoint in POOLING_PATHS
            else CompletionsWire(self._shown, model, label_ids, label_words, top_logprobs, options or {})
        )
        self._probed, self._probing = False, threading.Lock()
        key = api_key or os.environ.get(KEY_VARIABLE) or None
        self._client = RetryingClient(
            key=key, timeout=timeout, retries=retries, pause=pause, extra="remote", connections=concurrency
        )
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="prorank-remote")

    def label_logits(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """See :class:`prorank.scoring.Backend`; the numbers are log-probabilities, or 0 and the margin.

        Raises:
            RemoteError: the server failed, or its answer holds no score for a row.
        """
        prompts = [[*group.prefix_ids, *own] for own in group.own_ids]
        if not prompts:
            return np.zeros((0, 2), dtype=np.float32)
        self._probe(prompts[0])
        pairs: list[Pair] = []
        step = self._per_request
        answers = [
            self._pool.submit(self._ask, start, prompts[start : start + step]) for start in range(0, len(prompts), step)
        ]
        try:
            for answer in answers:
                pairs += answer.result()
        finally:
            for answer in answers:
                answer.cancel()
        return np.array(pairs, dtype=np.float32)

    def close(self) -> None:
        """End requests under way and close the connections. Calling it again does nothing."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def __enter__(self) -> RemoteBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RemoteBackend({self._shown!r}, {self.model!r})"

    def _ask(self, start: int, prompts: list[list[int]]) -> list[Pair]:
        """The pairs of some prompts; ``start`` is the first one's row, for messages."""
        if len(prompts) > 1 and self._per_request > 1:
            try:
                pairs = self._wire.pairs(self._post(self._wire.body(prompts)), len(prompts), start)
            except _RefusedError as refusal:
                if refusal.status not in _TOO_MUCH:
                    raise
                pairs = None
            if pairs is not None:
                return pairs
        one_by_one = []
        for i, prompt in enumerate(prompts):
            pairs = self._wire.pairs(self._post(self._wire.body([prompt])), 1, start + i)
            if pairs is None:
                raise RemoteError(f"{self._shown}: the answer to row {start + i} is not a completion or classification")
            one_by_one += pairs
        if len(prompts) > 1:
            self._per_request = 1  # one at a time works and several did not: remember it
        return one_by_one

    def _probe(self, prompt: list[int]) -> None:
        """Before the first answer is believed, see that the server means what it is asked."""
        with self._probing:
            if not self._probed and (body := self._wire.probe(prompt)) is not None:
                (pair,) = self._ask(0, [prompt])
                self._wire.check(pair, self._post(body))
            self._probed = True

    def _post(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self._client.post(self.url, body)
        except CallError as call:
            if call.status >= 400:
                message = f"{self._shown} answered {call.status} to try {call.tries}: {call.said}"
                raise _RefusedError(message, call.status) from None
            if call.status:
                message = f"{self._shown} did not answer with a JSON object: {call.said}"
            else:
                message = f"{self._shown}: no answer after {call.tries} tries: {call.said}"
            raise RemoteError(self._client.clean(message)) from None


class _RefusedError(RemoteError):
    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _endpoint(url: str) -> tuple[str, str]:
    """The endpoint, and the same without its query, for messages."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("url must be like http://host:8000/v1")
    if parts.username is not None:
        raise ValueError(f"url must hold no user name or password; give api_key or set {KEY_VARIABLE}")
    path = parts.path.rstrip("/")
    last = path.rpartition("/")[2]
    if last in ("score", "rerank"):
        raise ValueError(
            f"url: /{last} takes texts, in which a passage could forge a turn; /classify and /pooling of the same "
            "server take token ids"
        )
    if last not in POOLING_PATHS:
        path = (path.removesuffix("/completions") or "/v1") + "/completions"
    parts = parts._replace(path=path, fragment="")
    return urlunsplit(parts), urlunsplit(parts._replace(query=""))
