"""Reading a request's body without trusting it: size, time and memory are bounded before anything is parsed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from prorank.serve.config import ServeConfig
from prorank.serve.errors import ApiError

__all__ = ["BodyReader"]

_DRAIN_BYTES = 64 * 2**20
_DRAIN_SECONDS = 3.0


class BodyReader:
    """Reads bodies and knows how many bytes of them are in memory."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request, invalid: Callable[[str], ApiError]) -> AsyncIterator[bytes]:
        """The whole body, counted as in memory for the duration.

        Args:
            invalid: makes the format's own error for a body of the wrong kind.

        Raises:
            ApiError: 413 too large, 408 too slow, 415 not JSON, 429 too many bodies in memory.
            ClientDisconnect: the client went away.
        """
        self._check_type(request)
        bound = self._config.max_body_bytes
        declared = request.headers.get("content-length", "")
        if declared and not (declared.isascii() and declared.isdigit()):
            raise invalid("Content-Length: expected a number")
        if declared and int(declared[:20]) > bound:
            await self._drain(request)
            raise self._too_large()
        held = 0
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._config.body_timeout):
                async for chunk in request.stream():
                    held += len(chunk)
                    self._held += len(chunk)
                    if held > bound:
                        chunks.clear()
                        await self._drain(request)
                        raise self._too_large()
                    if self._held > self._config.max_buffered_bytes:
                        raise ApiError(429, "overloaded", "too many large requests at once", retry_after=2)
                    chunks.append(chunk)
            yield b"".join(chunks)
        except TimeoutError:
            raise ApiError(408, "timeout", f"the body took more than {self._config.body_timeout:g} s") from None
        finally:
            self._held -= held

    def _check_type(self, request: Request) -> None:
        # Only JSON: a page of another origin may send plain text or forms without asking (CORS), but not JSON.
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise ApiError(415, "invalid", "Content-Type: expected application/json")
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise ApiError(415, "invalid", "Content-Encoding: expected none")

    async def _drain(self, request: Request) -> None:
        """Throw away what still comes, for a moment: many clients read no answer before they have sent everything."""
        seen = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for chunk in request.stream():
                    seen += len(chunk)
                    if seen > _DRAIN_BYTES:
                        return
        except (TimeoutError, ClientDisconnect, RuntimeError):
            return

    def _too_large(self) -> ApiError:
        return ApiError(413, "too_large", f"the body is larger than {self._config.max_body_bytes} bytes")
