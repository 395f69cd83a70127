"""JSON posted to someone else's server: retries with growing pauses, ``Retry-After``, and no key in what it says.

Knows neither routes nor formats. The remote backend and the services of ``prorank.evaluate`` share it; each puts a
failure into words of its own.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from typing import Any

from prorank._optional import require

__all__ = ["CallError", "RetryingClient", "seconds_asked"]

_RETRIED = {408, 429, 500, 502, 503, 504}
_LONGEST_PAUSE = 60.0
_SHOWN = 300  # characters of an answer that a message repeats


class CallError(Exception):
    """A call that was given up.

    Args:
        said: the beginning of the answer, or what broke the connection; without the key.
        status: of the answer; 0 where none came, below 400 where the answer is not a JSON object.
        tries: how many there were.
    """

    def __init__(self, said: str, status: int, tries: int) -> None:
        super().__init__(said)
        self.said, self.status, self.tries = said, status, tries


class RetryingClient:
    """POSTs JSON with a bearer key. Safe to call from several threads.

    Args:
        key: sent as a bearer token; None: none is sent.
        timeout: seconds for one request.
        retries: further tries after 408, 429, 5xx, or where no connection was made, it broke, or no answer came in
            time.
        pause: seconds before the first retry, doubled each time; a server's own ``Retry-After`` counts instead.
        extra: the one that brings httpx, for the message where it is missing.
        connections: at once; None: httpx's own limit.

    Raises:
        ImportError: httpx is not installed.
    """

    def __init__(
        self, *, key: str | None, timeout: float, retries: int, pause: float, extra: str, connections: int | None = None
    ) -> None:
        httpx = require("httpx", extra=extra)
        self._key = key  # never leaves this object but in the request's header
        self._retries, self._pause = retries, pause
        self._transport_error: type[Exception] = httpx.TransportError
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = {} if connections is None else {"limits": httpx.Limits(max_connections=connections)}
        self.http: Any = httpx.Client(headers=headers, timeout=timeout, **limits)

    def post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer as an object.

        Raises:
            CallError: it refused, could not be reached, or did not answer with a JSON object.
        """
        pause = self._pause
        for tries in range(1, self._retries + 2):
            last = tries > self._retries
            wait = pause
            try:
                response = self.http.post(url, json=body)
            except self._transport_error as error:
                if last:
                    raise CallError(self.clean(f"{type(error).__name__}: {error}"), 0, tries) from None
            else:
                if response.status_code < 400:
                    return self._object(response, tries)
                if last or response.status_code not in _RETRIED:
                    raise CallError(self.clean(response.text)[:_SHOWN], response.status_code, tries)
                asked = seconds_asked(response.headers.get("retry-after"))
                wait = pause if asked is None else asked
            time.sleep(min(wait * random.uniform(1.0, 1.25), _LONGEST_PAUSE))  # not all at the same moment again
            pause *= 2
        raise AssertionError("unreachable")

    def clean(self, message: str) -> str:
        """The message without the key."""
        return message.replace(self._key, "[key]") if self._key else message

    def close(self) -> None:
        """Close the connections. Calling it again does nothing."""
        self.http.close()

    def _object(self, response: Any, tries: int) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise CallError(self.clean(response.text)[:_SHOWN], response.status_code, tries)
        return answer


def seconds_asked(header: str | None) -> float | None:
    """Seconds that a ``Retry-After`` asks for; None where it holds a date, or nothing of use."""
    try:
        seconds = float(header or "nan")
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
