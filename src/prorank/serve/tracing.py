"""OpenTelemetry spans, one a request, when asked for (extra ``otel``); without it this costs nothing.

Which exporter gets the spans is OpenTelemetry's own affair: environment variables or the program that mounts the app.
Attributes hold counts and times, never texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prorank._optional import require

__all__ = ["Tracer"]


class Tracer:
    """Opens a span per request; does nothing when not enabled.

    Raises:
        ImportError: enabled, and OpenTelemetry is not installed.
    """

    def __init__(self, enabled: bool) -> None:
        self._tracer: Any = None
        if enabled:
            self._trace = require("opentelemetry.trace", extra="otel")
            self._propagate = require("opentelemetry.propagate", extra="otel")
            self._tracer = self._trace.get_tracer("prorank.serve")

    @contextmanager
    def request(self, route: str, headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """A server span; what the caller puts into the yielded mapping becomes its attributes.

        A ``traceparent`` header makes the span a child of the caller's.
        """
        facts: dict[str, Any] = {}
        if self._tracer is None:
            yield facts
            return
        parent = self._propagate.extract(headers)
        with self._tracer.start_as_current_span(
            f"POST {route}", context=parent, kind=self._trace.SpanKind.SERVER, record_exception=False
        ) as span:
            try:
                yield facts
            finally:
                for name, value in facts.items():
                    span.set_attribute(f"prorank.{name}", value)
