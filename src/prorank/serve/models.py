"""The models of one server by name: loaded at start or on first use, with a memory bound.

Each loaded model has one thread that tokenises (fast tokenizers must not be entered twice) and one batcher that scores.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from prorank.scoring import DEFAULT_BATCH_TOKENS
from prorank.serve.batcher import Batcher
from prorank.serve.config import ServeConfig
from prorank.serve.errors import ApiError
from prorank.serve.metrics import Metrics, ModelMetrics

if TYPE_CHECKING:
    from prorank.backends.pooled import PooledBackend
    from prorank.reranker import Reranker
    from prorank.workers import Workers

__all__ = ["LazyModel", "LoadedModel", "Models"]

log = logging.getLogger("prorank.serve")


@dataclass(frozen=True)
class LazyModel:
    """A model to be loaded on first use.

    Args:
        load: makes the reranker; called in a thread.
        expected_bytes: size of its weights, so that room is made before it is loaded; 0 where unknown.
    """

    load: Callable[[], Reranker]
    expected_bytes: int = 0


@dataclass(eq=False)
class LoadedModel:
    """A reranker at work."""

    name: str
    reranker: Reranker
    batcher: Batcher
    metrics: ModelMetrics
    bytes: int
    encoder: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "prorank-encode"))
    users: int = 0
    used: float = field(default_factory=time.monotonic)

    @property
    def workers(self) -> Workers | None:
        """The processes that compute for it; None: this one does."""
        backend = self.reranker.backend
        return cast("PooledBackend", backend).workers if backend.capabilities.workers else None

    @property
    def ready(self) -> bool:
        """Somebody is there to compute."""
        return self.workers is None or self.workers.alive > 0

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Stop its threads and processes."""
        self.batcher.close(drain=drain, timeout=timeout)
        self.encoder.shutdown(wait=False, cancel_futures=True)
        if self.workers is not None:
            self.workers.close()


class Models:
    """Names and what stands behind them.

    Args:
        models: name -> a reranker, a function that makes one, or a :class:`LazyModel`; the first is the default.

    Raises:
        ValueError: no model, or an alias of an unknown one.
    """

    def __init__(
        self, models: Mapping[str, Reranker | LazyModel | Callable[[], Reranker]], config: ServeConfig, metrics: Metrics
    ) -> None:
        if not models:
            raise ValueError("models: at least one is needed")
        self._config = config
        self._metrics = metrics
        self._created = int(time.time())
        self._lazy: dict[str, LazyModel] = {}
        self._loaded: dict[str, LoadedModel] = {}
        self._loading: dict[str, asyncio.Task[LoadedModel]] = {}
        self._names = list(models)
        for name, model in models.items():
            if isinstance(model, LazyModel):
                self._lazy[name] = model
            elif hasattr(model, "score_groups"):
                self._loaded[name] = self._start(name, cast("Reranker", model))
            else:
                self._lazy[name] = LazyModel(model)
        self._aliases = dict(config.aliases)
        for alias, name in self._aliases.items():
            if name not in models:
                raise ValueError(f"aliases: {alias!r} stands for {name!r}, which is not one of {', '.join(models)}")
        self._strict = len(models) > 1 if config.strict_models is None else config.strict_models

    @property
    def default(self) -> str:
        """Who answers where a request names no model."""
        return self._names[0]

    @property
    def ready(self) -> bool:
        """The default model is in memory, and of several processes one lives."""
        model = self._loaded.get(self.default)
        return model is not None and model.ready

    @property
    def why_not_ready(self) -> str:
        """What ``/ready`` says then."""
        loading = self.default not in self._loaded
        return "the model is being loaded" if loading else "no worker process of the model is running"

    def resolve(self, name: str | None) -> str:
        """The model that a request means.

        Raises:
            ApiError: 404, no such model.
        """
        name = self._aliases.get(name, name) if name else None
        if not name:
            return self.default
        if name in self._names:
            return name
        if self._strict:
            raise ApiError(
                404, "not_found", f"model: no such model; served are {', '.join(self._names)}", param="model"
            )
        return self.default

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[LoadedModel]:
        """The loaded model, kept in memory for the duration; loads it first where need be.

        Raises:
            ApiError: 503, it cannot be loaded or the memory bound leaves no room.
        """
        model = self._loaded.get(name) or await self._load(name)
        model.users += 1
        try:
            yield model
        finally:
            model.users -= 1
            model.used = time.monotonic()

    async def load(self, name: str | None = None) -> None:
        """Bring a model (the default one) into memory."""
        async with self.use(name or self.default):
            pass

    def describe(self) -> list[dict[str, Any]]:
        """One entry a model, as ``GET /v1/models`` lists them."""
        return [
            {
                "id": name,
                "object": "model",
                "created": self._created,
                "owned_by": "prorank",
                "default": name == self.default,
                "loaded": name in self._loaded,
                "details": self._details(name),
            }
            for name in self._names
        ]

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Stop all models."""
        for model in self._loaded.values():
            model.close(drain=drain, timeout=timeout)

    # -- loading -------------------------------------------------------------------------------------------------

    def _details(self, name: str) -> dict[str, Any]:
        model = self._loaded.get(name)
        if model is None:
            return {}
        facts = model.reranker.describe()
        template = getattr(getattr(model.reranker, "encoder", None), "template", None)
        facts = {key: value for key, value in facts.items() if isinstance(value, str | int | float | bool)}
        facts["default_instruction"] = getattr(template, "default_instruction", None)
        return facts

    def _start(self, name: str, reranker: Reranker) -> LoadedModel:
        metrics = ModelMetrics(self._metrics, name, reranker.backend, getattr(reranker, "pair_cache", None))
        step = self._config.max_batch_tokens or int(getattr(reranker, "step_tokens", DEFAULT_BATCH_TOKENS))
        batcher = Batcher(
            reranker,
            max_batch_tokens=step,
            max_queue_tokens=self._config.max_queue_tokens,
            max_queue_seconds=self._config.max_queue_seconds,
            observer=metrics,
            name=name,
        )
        metrics.gauges(lambda: batcher.queued_requests, lambda: batcher.queued_tokens)
        size = reranker.backend.capabilities.weights_bytes
        self._metrics.loaded.labels(name).set(1)
        self._metrics.model_bytes.labels(name).set(size)
        model = LoadedModel(name, reranker, batcher, metrics, size)
        if (workers := model.workers) is not None:
            workers.watch()
            self._metrics.workers.labels(name).set_function(lambda: workers.alive)
        return model

    async def _load(self, name: str) -> LoadedModel:
        task = self._loading.get(name)
        if task is None:  # the first to ask loads it; a request that gives up must not end it for the others
            task = self._loading[name] = asyncio.ensure_future(self._load_now(name))
            task.add_done_callback(lambda _: self._loading.pop(name, None))
        return await asyncio.shield(task)

    async def _load_now(self, name: str) -> LoadedModel:
        lazy = self._lazy[name]
        self._make_room(name, lazy.expected_bytes)
        started = time.monotonic()
        try:
            reranker = await asyncio.get_running_loop().run_in_executor(None, lazy.load)
        except Exception as error:
            log.error("model not loaded", extra={"model": name, "error": type(error).__name__}, exc_info=True)
            raise ApiError(503, "unavailable", f"model {name} cannot be loaded", retry_after=30) from error
        self._make_room(name, reranker.backend.capabilities.weights_bytes)
        self._loaded[name] = model = self._start(name, reranker)
        log.info("model loaded", extra={"model": name, "seconds": round(time.monotonic() - started, 3)})
        return model

    def _make_room(self, name: str, needed: int) -> None:
        bound = self._config.max_model_bytes
        if bound is None:
            return
        idle = sorted(
            (m for m in self._loaded.values() if m.name in self._lazy and not m.users and m.batcher.idle),
            key=lambda model: model.used,
        )
        while sum(model.bytes for model in self._loaded.values()) + needed > bound and idle:
            dropped = idle.pop(0)
            del self._loaded[dropped.name]
            dropped.close(drain=False, timeout=5)
            self._metrics.loaded.labels(dropped.name).set(0)
            self._metrics.model_bytes.labels(dropped.name).set(0)
            log.info("model dropped", extra={"model": dropped.name})
        if sum(model.bytes for model in self._loaded.values()) + needed > bound:
            raise ApiError(
                503, "unavailable", f"model {name} does not fit into memory beside those in use", retry_after=5
            )
