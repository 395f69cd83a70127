"""Prometheus metrics of one app, in a registry of its own (several apps can live in one process)."""

from __future__ import annotations

from collections.abc import Callable

from prorank._optional import require
from prorank.pair_cache import PairCache
from prorank.scoring import Backend

__all__ = ["Metrics", "ModelMetrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


class Metrics:
    """All metrics; names start with ``prorank_``."""

    def __init__(self) -> None:
        prom = require("prometheus_client", extra="serve")
        self._prom = prom
        self.registry = registry = prom.CollectorRegistry(auto_describe=True)

        def make(kind: Callable, name: str, text: str, labels: tuple[str, ...], **more: object):  # type: ignore[no-untyped-def,type-arg]
            return kind(f"prorank_{name}", text, labels, registry=registry, **more)

        model = ("model",)
        self.requests = make(prom.Counter, "requests", "Requests answered", ("route", "status"))
        self.request_seconds = make(
            prom.Histogram, "request_seconds", "From a request's head to the end of its answer", ("route",),
            buckets=_SECONDS,
        )  # fmt: skip
        self.in_flight = make(prom.Gauge, "requests_in_flight", "Requests accepted and not yet answered", ())
        self.refused = make(prom.Counter, "refused", "Requests that got no scores", ("reason",))
        self.gone = make(prom.Counter, "client_gone", "Requests whose client went away before the answer", ())
        self.queue_requests = make(prom.Gauge, "queue_requests", "Requests with documents that wait", model)
        self.queue_tokens = make(prom.Gauge, "queue_tokens", "Tokens accepted and not yet scored", model)
        self.queue_seconds = make(
            prom.Histogram, "queue_wait_seconds", "From encoded to the first batch", model, buckets=_SECONDS
        )
        self.batch_tokens = make(prom.Histogram, "batch_tokens", "Tokens of a scoring step", model, buckets=_TOKENS)
        self.batch_seconds = make(
            prom.Histogram, "batch_seconds", "Duration of a scoring step", model, buckets=_SECONDS
        )
        self.documents = make(prom.Counter, "documents", "Documents scored; its rate is documents/s", model)
        self.tokens = make(prom.Counter, "tokens", "Tokens scored", model)
        self.truncated = make(prom.Counter, "documents_truncated", "Documents cut to the model's window", model)
        self.prefix_tokens = make(
            prom.Counter, "prefix_shared_tokens", "Prefix tokens not computed again for each document", model
        )
        self.prefix_hits = make(
            prom.Counter, "prefix_cache_hits", "Batches whose prefix was still in the backend's cache", model
        )
        self.pair_hits = make(prom.Counter, "pair_cache_hits", "Rows whose margin was in --pair-cache", model)
        self.pair_misses = make(
            prom.Counter,
            "pair_cache_misses",
            "Rows that were not in --pair-cache; the hit rate is hits/(hits + misses)",
            model,
        )
        self.dropped = make(prom.Counter, "queue_dropped", "Requests taken out of the queue, their client gone", model)
        self.loaded = make(prom.Gauge, "model_loaded", "1 while the model is in memory", model)
        self.workers = make(
            prom.Gauge, "workers", "Processes that compute and are alive (--processes, --devices)", model
        )
        self.model_bytes = make(prom.Gauge, "model_bytes", "Size of the model's weights in memory", model)

    def render(self) -> tuple[bytes, str]:
        """(body, content type) for a scrape."""
        return self._prom.generate_latest(self.registry), self._prom.CONTENT_TYPE_LATEST


class ModelMetrics:
    """One model's view of :class:`Metrics`: what a batcher tells."""

    def __init__(self, metrics: Metrics, model: str, backend: Backend, pair_cache: PairCache | None = None) -> None:
        self._backend = backend
        self._pair_cache = pair_cache
        self._pairs_seen = (0, 0)
        self._pair_hits = metrics.pair_hits.labels(model)
        self._pair_misses = metrics.pair_misses.labels(model)
        self._hits_seen = 0
        self._hits = metrics.prefix_hits.labels(model)
        self._metrics = metrics
        self._wait = metrics.queue_seconds.labels(model)
        self._batch_tokens = metrics.batch_tokens.labels(model)
        self._batch_seconds = metrics.batch_seconds.labels(model)
        self._documents = metrics.documents.labels(model)
        self._tokens = metrics.tokens.labels(model)
        self._prefix = metrics.prefix_tokens.labels(model)
        self._dropped = metrics.dropped.labels(model)
        self.truncated = metrics.truncated.labels(model)
        self._model = model

    def gauges(self, queued_requests: Callable[[], int], queued_tokens: Callable[[], int]) -> None:
        """Read the queue's depth at every scrape."""
        self._metrics.queue_requests.labels(self._model).set_function(queued_requests)
        self._metrics.queue_tokens.labels(self._model).set_function(queued_tokens)

    def waited(self, seconds: float) -> None:
        self._wait.observe(seconds)

    def scored(self, documents: int, tokens: int, shared_tokens: int, seconds: float) -> None:
        self._batch_tokens.observe(tokens)
        self._batch_seconds.observe(seconds)
        self._documents.inc(documents)
        self._tokens.inc(tokens)
        self._prefix.inc(shared_tokens)
        hits = self._backend.prefix_hits
        self._hits.inc(max(hits - self._hits_seen, 0))
        self._hits_seen = hits
        if self._pair_cache is not None:
            now = (self._pair_cache.hits, self._pair_cache.misses)
            self._pair_hits.inc(now[0] - self._pairs_seen[0])
            self._pair_misses.inc(now[1] - self._pairs_seen[1])
            self._pairs_seen = now

    def dropped(self) -> None:
        self._dropped.inc()
