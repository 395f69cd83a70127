"""Settings of a server; plain data, no behaviour."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

__all__ = ["ServeConfig"]


@dataclass(frozen=True)
class ServeConfig:
    """Limits and behaviour of one server. Every field is a flag of ``prorank serve`` with the same name."""

    max_batch_tokens: int | None = None
    """Own tokens (padding counted) per scoring step, which mixes requests; larger steps make the next request wait
    longer. None: what the model computes at once (its ``step_tokens``)."""
    max_queue_tokens: int = 262_144
    """Tokens of all requests that may wait for one model; beyond that, a request gets 429."""
    max_queue_requests: int = 256
    """Requests accepted and not yet answered, over all models; beyond that, 429."""
    max_queue_seconds: float = 20.0
    """Longest expected wait, at the speed measured so far; beyond that, a request gets 429."""
    request_timeout: float = 60.0
    """Seconds from the arrival of the whole body to the answer; beyond that, 503."""
    body_timeout: float = 15.0
    """Seconds for a request's head, and then its body, to arrive; after that the connection is closed (body: 408)."""
    shutdown_timeout: float = 60.0
    """Seconds for accepted requests to finish after SIGTERM."""
    max_body_bytes: int = 10 * 2**20
    """Size limit of one request's body; beyond that, 413."""
    max_buffered_bytes: int = 256 * 2**20
    """Size limit of all bodies in memory at once; beyond that, 429."""
    max_documents: int = 1000
    """Documents (or pairs) in one request; beyond that, 413."""
    max_document_chars: int = 100_000
    """Characters of one document; beyond that, 413. (What exceeds the model's window is cut, or scored by windows.)"""
    max_query_chars: int = 20_000
    """Characters of a query or an instruction; beyond that, 413."""
    max_request_tokens: int = 262_144
    """Tokens of one request after truncation; beyond that, 413."""
    max_model_bytes: int | None = None
    """Memory limit of all loaded models; beyond it, the least recently used idle model is unloaded. None: none."""
    auto_truncate: bool = False
    """Cut texts that are too long if a text-embeddings-inference request does not say; otherwise it gets 413."""
    instruction: str | None = None
    """What relevance means if a request has no instruction; None: the model's own default."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Accepted keys; without any, no key is needed."""
    aliases: tuple[tuple[str, str], ...] = ()
    """(name in requests, model's name) pairs, such as ("rerank-v3.5", "default")."""
    strict_models: bool | None = None
    """Refuse unknown model names (404). None: only with several models; a single model answers to any name."""
    telemetry: bool = False
    """OpenTelemetry spans (extra ``otel``); exporters are set by OpenTelemetry's own environment variables."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be greater than 0, got {value}")
        for key in self.api_keys:
            if len(key) < 8 or key != key.strip() or not key.isascii() or not key.isprintable():
                raise ValueError("api_keys: a key must be at least 8 printable ASCII characters without outer spaces")


_NAMES = [one.name for one in dataclasses.fields(ServeConfig)]
_POSITIVE = [name for name in _NAMES if name.startswith("max_") or name.endswith("_timeout")]
