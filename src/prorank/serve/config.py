"""What can be set about a server; plain data, no behaviour."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

__all__ = ["ServeConfig"]


@dataclass(frozen=True)
class ServeConfig:
    """Limits and habits of one server. Every field is a flag of ``prorank serve`` of the same name."""

    max_batch_tokens: int | None = None
    """Own tokens (padding counted) of one scoring step, in which requests are mixed; larger steps mean longer waits for
    whoever comes next. None: what the model computes at the same time (its ``step_tokens``)."""
    max_queue_tokens: int = 262_144
    """Tokens of all requests waiting for one model; over it a request is refused with 429."""
    max_queue_requests: int = 256
    """Requests accepted and not yet answered, all models together; over it 429."""
    max_queue_seconds: float = 20.0
    """Expected wait, at the speed measured so far, over which a request is refused with 429."""
    request_timeout: float = 60.0
    """Seconds from the whole body's arrival to the answer; over it 503."""
    body_timeout: float = 15.0
    """Seconds a request's head, and then its body, may take to arrive; over it the connection is closed (body: 408)."""
    shutdown_timeout: float = 60.0
    """Seconds that accepted requests get after SIGTERM."""
    max_body_bytes: int = 10 * 2**20
    """Size of one request's body; over it 413."""
    max_buffered_bytes: int = 256 * 2**20
    """Bodies in memory at once, all requests together; over it 429."""
    max_documents: int = 1000
    """Documents (or pairs) in one request; over it 413."""
    max_document_chars: int = 100_000
    """Characters of one document; over it 413. (What is over the model's window is cut, or scored by windows.)"""
    max_query_chars: int = 20_000
    """Characters of a query or an instruction; over it 413."""
    max_request_tokens: int = 262_144
    """Tokens of one request after truncation; over it 413."""
    max_model_bytes: int | None = None
    """Memory of loaded models together; over it the least recently used idle model is dropped. None: no bound."""
    auto_truncate: bool = False
    """Texts that are too long are cut where a text-embeddings-inference request does not say; otherwise 413."""
    instruction: str | None = None
    """What relevance means where a request gives no instruction; None: the model's own default."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Accepted keys; none means that no key is asked for."""
    aliases: tuple[tuple[str, str], ...] = ()
    """(name in requests, model's name) pairs, such as ("rerank-v3.5", "default")."""
    strict_models: bool | None = None
    """Refuse unknown model names (404). None: only where several models are served; a single model answers to any."""
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
