"""What every request passes: id, keys, drain, counting, one log line; and every error's way into its format's body.

Plain ASGI, not a framework middleware: those wrap ``receive`` and would hide a client that went away.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import re
import time
import uuid
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prorank.serve.errors import ERROR_BODIES, ApiError
from prorank.serve.formats import ROUTES
from prorank.serve.service import Service

__all__ = ["PUBLIC_PATHS", "Gate", "error_response", "http_error"]

log = logging.getLogger("prorank.serve")

PUBLIC_PATHS = frozenset(
    {"/", "/app.js", "/style.css", "/docs", "/docs.js", "/openapi.json", "/health", "/ready", "/metrics"}
)
"""Answer without a key: nothing there says anything about texts, models or keys."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


def error_response(error: ApiError, format_name: str, request_id: str) -> Response:
    """The error as the format's clients expect it."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status in (408, 413):  # the rest of the body may still be on its way: this connection is of no more use
        headers["connection"] = "close"
    body = json.dumps(ERROR_BODIES[format_name](error, request_id), ensure_ascii=False).encode()
    return Response(body, error.status, headers, media_type="application/json")


def http_error(scope: Scope, error: HTTPException) -> Response:
    """Starlette's own refusals (404, 405) in our body."""
    kind = "not_found" if error.status_code == 404 else "invalid"
    plain = ApiError(error.status_code, kind, str(error.detail))  # type: ignore[arg-type]
    response = error_response(plain, _format_of(scope), scope["prorank"]["request_id"])
    response.headers.update(error.headers or {})
    return response


def _format_of(scope: Scope) -> str:
    known = scope["prorank"].get("format")
    return known or ROUTES.get(scope["path"], ("plain",))[0]


class Gate:
    """The outermost ASGI application.

    Args:
        app: what answers.
        service: tells whether the server is stopping; holds configuration and metrics.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._keys = [_digest(key) for key in service.config.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        facts: dict[str, Any] = {"request_id": request_id}
        scope["prorank"] = facts
        started = time.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {key for key, _ in message["headers"]}
                extra = [(b"x-request-id", request_id.encode()), *_HEADERS]
                if self._service.draining:
                    extra.append((b"connection", b"close"))
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in given)]
            await send(message)

        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await self.refused(scope, refusal)(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except Exception as error:  # the application has its own handlers: this is a bug in one of them
            facts["error"] = type(error).__name__
            if not status:
                await self.broken(scope, error)(scope, receive, answer)
        finally:
            self._account(scope, facts, status, time.monotonic() - started)

    def refused(self, scope: Scope, error: ApiError) -> Response:
        """Counts, logs and lays out an :class:`ApiError`."""
        facts = scope["prorank"]
        facts["error"] = error.kind
        self._service.metrics.refused.labels(error.kind).inc()
        if error.status >= 500:
            extra = {"request_id": facts["request_id"]}
            log.warning(error.message, extra=extra, exc_info=error.__cause__)
        return error_response(error, _format_of(scope), facts["request_id"])

    def gone(self, scope: Scope) -> Response:
        """The client went away: counted; the response only says how it is logged (499, as nginx numbers it)."""
        self._service.metrics.gone.inc()
        scope["prorank"]["error"] = "client_gone"
        return Response(status_code=499)

    def broken(self, scope: Scope, error: Exception) -> Response:
        """An error nobody foresaw: the log gets its kind and place, the client an id to ask about."""
        facts = scope["prorank"]
        facts["error"] = type(error).__name__
        self._service.metrics.refused.labels("internal").inc()
        log.error("unexpected error", extra={"request_id": facts["request_id"]}, exc_info=error)
        sorry = ApiError(500, "internal", "internal error; the log has the place under this request's id")
        return error_response(sorry, _format_of(scope), facts["request_id"])

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> ApiError | None:
        path = scope["path"]
        if self._service.draining and (path in ROUTES or path == "/ready"):
            return ApiError(503, "unavailable", "the server is stopping", retry_after=5)
        if self._keys and path not in PUBLIC_PATHS and not self._known_key(headers):
            return ApiError(401, "unauthorized", "a valid API key is needed (Authorization: Bearer KEY)")
        return None

    def _known_key(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            key = headers.get(b"x-api-key", b"")
        offered = hashlib.sha256(key.strip()).digest()
        # Digests have one length, and every key is compared to the end: time tells nothing about any of them.
        return sum(hmac.compare_digest(offered, known) for known in self._keys) > 0

    def _account(self, scope: Scope, facts: dict[str, Any], status: int, seconds: float) -> None:
        path = scope["path"]
        route = path if path in ROUTES or path in PUBLIC_PATHS or path == "/v1/models" else "other"
        metrics = self._service.metrics
        metrics.requests.labels(route, str(status)).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route in ("/health", "/ready", "/metrics") else logging.INFO
        extra = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 4)}
        extra.update({key: value for key, value in facts.items() if key != "format"})
        log.log(level, "request", extra=extra)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The caller's id where it is harmless to write into a log, else a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
