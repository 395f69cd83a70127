"""One JSON request to a service: where its key comes from, and what its failures are called."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from prorank.backends.retrying import CallError, RetryingClient

__all__ = ["JsonService", "ServiceError"]


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
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"the service's address must start with http:// or https://, got {base_url!r}")
        key = next((os.environ[name] for name in key_variables if os.environ.get(name)), None)
        if key is None and key_required:
            raise ValueError(f"no key for {base_url}: set the environment variable {' or '.join(key_variables)}")
        self.base_url = base_url.rstrip("/")
        self._client = RetryingClient(key=key, timeout=timeout, retries=retries, pause=pause, extra="evaluate")

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The service's answer as an object.

        Raises:
            ServiceError: it refused, could not be reached, or did not answer with a JSON object.
        """
        url = self.base_url + path
        try:
            return self._client.post(url, body)
        except CallError as call:
            if call.status >= 400:
                message = f"{url} answered {call.status}: {call.said}"
            elif call.status:
                message = f"{url} did not answer with a JSON object: {call.said}"
            else:
                message = f"{self.base_url}: {call.said}"
            raise ServiceError(self._client.clean(message)) from None
