"""One JSON request to a service: key from the environment, retries with growing pauses, errors without secrets."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from prorank._optional import require

__all__ = ["JsonService", "ServiceError"]

_RETRIED = {408, 429, 500, 502, 503, 504}


class ServiceError(RuntimeError):
    """A service refused, did not answer, or answered what its format does not allow. Finished queries are kept."""


class JsonService:
    """POSTs JSON with a bearer key.

    Args:
        base_url: without the path of the call.
        key_variables: environment variables tried in order; the first that is set holds the key.
        key_required: whether a missing key is an error at once.
        timeout: seconds for one request.
        retries: further tries after a refusal that may pass (408, 429, 5xx), or where no connection was made, it broke,
            or no answer came in time.
        pause: seconds before the first retry; doubled each time, unless the service says how long.

    Raises:
        ValueError: ``base_url`` is not an HTTP address, or no key is set though one is required.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key_variables: Sequence[str],
        key_required: bool,
        timeout: float = 120.0,
        retries: int = 4,
        pause: float = 1.0,
    ) -> None:
        httpx = require("httpx", extra="evaluate")
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"the service's address must start with http:// or https://, got {base_url!r}")
        key = next((os.environ[name] for name in key_variables if os.environ.get(name)), None)
        if key is None and key_required:
            raise ValueError(f"no key for {base_url}: set the environment variable {' or '.join(key_variables)}")
        self._key = key  # never leaves this object but in the request's header
        self._retries, self._pause = retries, pause
        self._transport_error: type[Exception] = httpx.TransportError
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.base_url = base_url.rstrip("/")
        self._client: Any = httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The service's answer as an object.

        Raises:
            ServiceError: it refused, could not be reached, or did not answer with a JSON object.
        """
        pause = self._pause
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = self._client.post(path, json=body)
            except self._transport_error as error:
                if last:
                    raise ServiceError(self._clean(f"{self.base_url}: {type(error).__name__}: {error}")) from None
            else:
                if response.status_code < 400:
                    return self._object(response)
                if last or response.status_code not in _RETRIED:
                    raise ServiceError(
                        self._clean(f"{self.base_url}{path} answered {response.status_code}: {response.text[:300]}")
                    )
                pause = _seconds(response.headers.get("retry-after")) or pause
            time.sleep(min(pause, 60.0))
            pause *= 2
        raise AssertionError("unreachable")

    def _object(self, response: Any) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServiceError(self._clean(f"{response.url} did not answer with a JSON object: {response.text[:300]}"))
        return answer

    def _clean(self, message: str) -> str:
        return message.replace(self._key, "[key]") if self._key else message


def _seconds(header: str | None) -> float | None:
    """Seconds that a ``Retry-After`` asks for; None where it holds a date, or nothing of use."""
    try:
        seconds = float(header or "nan")
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
