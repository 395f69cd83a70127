"""Serve rerankers over HTTP: the formats of Cohere, Jina, Voyage, text-embeddings-inference and vLLM, and a page.

prorank serve                                   # 127.0.0.1:8080, the built-in reranker
prorank serve --model DIR --host 0.0.0.0 --api-key-file keys.txt --max-batch-tokens 8192
prorank serve --model fast=DIR1 --model good=DIR2 --alias rerank-v3.5=good
prorank serve --devices cuda:0,cuda:1           # a process for each GPU, behind one queue; on CPUs: --processes N
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorank.cli._model import add_model_arguments, load_reranker, positive

if TYPE_CHECKING:
    from prorank.serve.config import ServeConfig

__all__ = ["add_arguments", "run"]

log = logging.getLogger("prorank.serve")

_LIMITS: tuple[tuple[str, Callable[[str], Any], str], ...] = (
    ("max_batch_tokens", positive, "tokens per step, shared by requests (default: --batch-tokens)"),
    ("max_queue_tokens", positive, "tokens that may wait for a model; beyond that, 429 (default: 262144)"),
    ("max_queue_requests", positive, "requests accepted at once; beyond that, 429 (default: 256)"),
    ("max_queue_seconds", float, "longest expected wait; beyond that, 429 (default: 20)"),
    ("request_timeout", float, "seconds to an answer; beyond that, 503 (default: 60)"),
    ("body_timeout", float, "seconds a request may take to arrive (default: 15)"),
    ("shutdown_timeout", float, "seconds for accepted requests to finish after SIGTERM (default: 60)"),
    ("max_body_bytes", positive, "size of a request's body (default: 10 MiB)"),
    ("max_documents", positive, "documents in one request (default: 1000)"),
    ("max_document_chars", positive, "characters of one document (default: 100000)"),
    ("max_query_chars", positive, "characters of a query or instruction (default: 20000)"),
    ("max_request_tokens", positive, "tokens of one request (default: 262144)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank serve``."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="[NAME=]MODEL",
        help="built-in name, folder or hub id to serve; repeatable with names, the first is the default",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on; 0 picks one (default: %(default)s)")
    parser.add_argument(
        "--load", choices=("first", "all"), default="first", help="models to load at start (default: first)"
    )
    parser.add_argument("--max-model-memory", type=float, metavar="GIB", help="memory limit of all loaded models")
    parser.add_argument("--api-key-file", metavar="FILE", help="accepted keys, one per line (default: no key needed)")
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME=MODEL",
        help="another name for a model in requests; repeatable",
    )
    parser.add_argument(
        "--strict-models",
        action=argparse.BooleanOptionalAction,
        help="refuse unknown model names (default: only with several models)",
    )
    parser.add_argument(
        "--auto-truncate",
        action="store_true",
        help="cut texts that are too long in text-embeddings-inference requests that do not say (default: 413)",
    )
    parser.add_argument("--telemetry", action="store_true", help="write OpenTelemetry spans (extra otel)")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="lowest level written to stderr; debug adds /health, /ready, /metrics (default: %(default)s)",
    )
    parser.add_argument("--ssl-certfile", metavar="FILE", help="serve HTTPS with this certificate")
    parser.add_argument("--ssl-keyfile", metavar="FILE", help="the certificate's key")
    limits = parser.add_argument_group("limits")
    for name, kind, text in _LIMITS:
        limits.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)
    add_model_arguments(parser, model=False, several=True)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; finish accepted requests first.

    Raises:
        ValueError: a flag's value does not fit, or the first model cannot be loaded.
        ImportError: the extra ``serve`` is not installed.
    """
    from prorank._optional import require

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, extra="serve")
    from prorank.serve.app import create_app
    from prorank.serve.logs import setup_logging
    from prorank.serve.models import LazyModel
    from prorank.serve.server import make_server

    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be between 0 and 65535, got {args.port}")
    if args.ssl_keyfile and not args.ssl_certfile:
        raise ValueError("--ssl-keyfile needs --ssl-certfile")
    config = _config(args)
    sources = _sources(args.model)
    setup_logging(args.log_level)
    models: dict[str, Any] = {}
    for place, (name, source) in enumerate(sources.items()):

        def load(source: str | None = source) -> Any:
            reranker = load_reranker(args, source)
            reranker.rank("a first query", ["a passage", "another"])  # broken weights show now, and kernels get warm
            return reranker

        if place == 0 or args.load == "all":
            models[name or "default"] = reranker = load()  # at once: a wrong flag is an error here, not a 503 later
            if name is None:
                models = {reranker.name: reranker}
        else:
            models[name or source or "default"] = LazyModel(load, _folder_bytes(source))
    if not config.api_keys and args.host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("listening beyond this machine without --api-key-file: anyone who reaches the port can use it")
    app = create_app(models, config)
    tls = {"ssl_certfile": args.ssl_certfile, "ssl_keyfile": args.ssl_keyfile} if args.ssl_certfile else {}
    server = make_server(app, host=args.host, port=args.port, **tls)
    server.run()
    return 0 if server.started else 1


def _config(args: argparse.Namespace) -> ServeConfig:
    from prorank.serve.config import ServeConfig

    given = {name: getattr(args, name) for name, _, _ in _LIMITS if getattr(args, name) is not None}
    if args.max_model_memory is not None:
        given["max_model_bytes"] = int(args.max_model_memory * 2**30)
    return ServeConfig(
        **given,
        api_keys=_read_keys(args.api_key_file) if args.api_key_file else (),
        aliases=tuple(_named(alias, "--alias") for alias in args.alias),
        strict_models=args.strict_models,
        auto_truncate=args.auto_truncate,
        instruction=args.instruction,
        telemetry=args.telemetry,
    )


def _named(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise ValueError(f"{flag} must be NAME=MODEL, got {text!r}")
    return name, value


def _sources(given: list[str] | None) -> dict[str | None, str | None]:
    """Name -> what to load; no name (None) where one model came without one: it has its own then."""
    if not given:
        return {None: None}
    if len(given) == 1 and "=" not in given[0]:
        return {None: given[0]}
    sources: dict[str | None, str | None] = {}
    for text in given:
        name, source = _named(text, "--model") if "=" in text else (Path(text).name, text)
        if name in sources:
            raise ValueError(f"--model: two models are called {name!r}; give them names: --model NAME=MODEL")
        sources[name] = source
    return sources


def _read_keys(path: str) -> tuple[str, ...]:
    lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ValueError(f"--api-key-file {path}: holds no key (one per line; lines starting with # are comments)")
    return keys


def _folder_bytes(source: str | None) -> int:
    """Size of a folder's weights; 0 where ``source`` is not a folder."""
    folder = Path(source) if source else None
    if folder is None or not folder.is_dir():
        return 0
    return sum(os.path.getsize(path) for path in folder.rglob("*.safetensors"))
