"""``create_app``: the server as an ASGI application, around rerankers that the caller brings.

Run it with ``prorank serve``, with any ASGI server, or in a test without a socket. It knows routes; what they do is in
:mod:`prorank.serve.service`, how they speak in :mod:`prorank.serve.formats`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from prorank._version import __version__
from prorank.serve import answers
from prorank.serve.config import ServeConfig
from prorank.serve.errors import ApiError
from prorank.serve.formats import FORMATS, ROUTES
from prorank.serve.gate import Gate, http_error
from prorank.serve.metrics import Metrics
from prorank.serve.models import LazyModel, Models
from prorank.serve.service import ClientGoneError, Service

if TYPE_CHECKING:
    from prorank.reranker import Reranker

__all__ = ["ServeApp", "create_app"]

PAGE_FILES = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/docs": ("docs.html", "text/html"),
    "/docs.js": ("docs.js", "text/javascript"),
}
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SUMMARIES = {
    "/v1/rerank": "Rerank: Jina, Cohere v1, infinity and llama.cpp",
    "/v2/rerank": "Rerank: Cohere v2",
    "/voyage/v1/rerank": "Rerank: Voyage AI",
    "/infinity/rerank": "Rerank: infinity, with its own defaults",
    "/rerank": "Rerank: text-embeddings-inference (texts), or as /v1/rerank (documents)",
    "/reranking": "Rerank: llama.cpp, as /rerank",
    "/v1/reranking": "Rerank: llama.cpp, as /rerank",
    "/score": "Score pairs: vLLM",
    "/v1/score": "Score pairs: vLLM",
}


class ServeApp:
    """The ASGI application; ``service`` is at hand for a server that wants to drain it."""

    def __init__(self, gate: Gate, api: FastAPI, service: Service) -> None:
        self._gate = gate
        self.api = api
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gate(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI schema."""
        return self.api.openapi()


def create_app(
    models: Reranker | Mapping[str, Reranker | LazyModel | Callable[[], Reranker]],
    config: ServeConfig | None = None,
) -> ServeApp:
    """The server's application.

    Args:
        models: one reranker, or several by name, the first being the default. A function (or :class:`LazyModel`)
            instead of a reranker is called on first use; a default model given so is loaded at start.
        config: limits, keys, names.

    Raises:
        ValueError: no model, or configuration that does not fit the models.
        ImportError: a package of the extra ``serve`` is missing.
    """
    config = config or ServeConfig()
    if not isinstance(models, Mapping):
        models = {models.name: models}
    metrics = Metrics()
    service = Service(Models(models, config, metrics), config, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Not awaited: /health must answer, and /ready say no, while the default model loads.
        loading = asyncio.ensure_future(service.models.load())
        loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        yield
        loading.cancel()
        await asyncio.to_thread(service.close, timeout=config.shutdown_timeout)

    api = FastAPI(
        title="ProRank",
        summary="Rerank documents with a small language model",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
    )
    _add_rerank_routes(api, service)
    _add_service_routes(api, service)
    _add_page(api)

    gate = Gate(api, service)
    _add_error_handlers(api, gate)
    _describe_requests(api)
    return ServeApp(gate, api, service)


def _add_error_handlers(api: FastAPI, gate: Gate) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return gate.refused(request.scope, error)

    async def not_routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return http_error(request.scope, error)

    async def gone(request: Request, _: Exception) -> Response:
        return gate.gone(request.scope)

    async def broken(request: Request, error: Exception) -> Response:
        return gate.broken(request.scope, error)

    api.add_exception_handler(ApiError, refused)
    api.add_exception_handler(HTTPException, not_routed)
    api.add_exception_handler(ClientGoneError, gone)
    api.add_exception_handler(Exception, broken)


def _add_rerank_routes(api: FastAPI, service: Service) -> None:
    for path, names in ROUTES.items():
        formats = [FORMATS[name] for name in names]

        def make(path: str) -> Callable[[Request], Any]:
            async def answer(request: Request) -> Response:
                return await service.handle(request, path)

            return answer

        bodies = [{"$ref": f"#/components/schemas/{one.request.__name__}"} for one in formats]
        error = formats[0].error if len(formats) == 1 else formats[0].error | formats[1].error
        answer_type = formats[0].answer if len(formats) == 1 else formats[0].answer | formats[1].answer
        reasons = {
            400: "The body does not fit", 401: "No valid key", 404: "No such model", 408: "The body came too slowly",
            413: "Too large", 415: "Not JSON", 422: "The body does not fit", 429: "Too many requests",
            500: "Scoring failed", 503: "Over time, or stopping",
        }  # fmt: skip
        api.add_api_route(
            path,
            make(path),
            methods=["POST"],
            summary=_SUMMARIES[path],
            operation_id=path.strip("/").replace("/", "_"),
            response_model=None,
            responses={
                200: {"model": answer_type, "description": "Scores"},
                **{status: {"model": error, "description": text} for status, text in reasons.items()},
            },
            openapi_extra={
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": bodies[0] if len(bodies) == 1 else {"anyOf": bodies}}},
                }
            },
            tags=["rerank"],
        )


def _add_service_routes(api: FastAPI, service: Service) -> None:
    @api.get("/v1/models", tags=["service"], summary="The models by name", response_model=answers.ModelList)
    async def models() -> Any:
        return {"object": "list", "data": service.models.describe()}

    @api.get("/health", tags=["service"], summary="The process is alive")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/ready", tags=["service"], summary="The default model can score", responses={503: {}})
    async def ready() -> JSONResponse:
        if not service.models.ready:
            raise ApiError(503, "unavailable", service.models.why_not_ready, retry_after=2)
        return JSONResponse({"status": "ready"})

    @api.get("/metrics", tags=["service"], summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        body, kind = await asyncio.to_thread(service.metrics.render)
        return Response(body, headers={"content-type": kind})


def _add_page(api: FastAPI) -> None:
    for path, (name, kind) in PAGE_FILES.items():

        def make(name: str, kind: str) -> Callable[[], Any]:
            async def page() -> Response:
                body = resources.files("prorank.serve").joinpath("page", name).read_bytes()
                headers = {"content-security-policy": _CSP, "cache-control": "no-cache"}
                return Response(body, media_type=f"{kind}; charset=utf-8", headers=headers)

            return page

        api.add_api_route(path, make(name, kind), methods=["GET"], include_in_schema=False)


def _describe_requests(api: FastAPI) -> None:
    """Add the request schemas: bodies are read by hand (bounded), so FastAPI does not see them."""
    plain = api.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        parts = schema.setdefault("components", {}).setdefault("schemas", {})
        wanted = [(one.request, "validation") for one in FORMATS.values()]
        _, found = models_json_schema(wanted, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        for name, part in found["$defs"].items():
            parts.setdefault(name, part)
        return schema

    api.openapi = openapi  # type: ignore[method-assign]
