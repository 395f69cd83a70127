"""Serve rerank_documents and score_pairs as tools of the Model Context Protocol, over stdio or HTTP.

An assistant starts it itself, by a line of its configuration such as {"command": "prorank", "args": ["mcp"]}.

prorank mcp
prorank mcp --http --port 8090        # http://127.0.0.1:8090/mcp
"""

from __future__ import annotations

import argparse

from prorank.cli._model import add_model_arguments, load_reranker

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank mcp``."""
    parser.add_argument("--http", action="store_true", help="serve over HTTP at /mcp instead of stdio")
    parser.add_argument("--host", default="127.0.0.1", help="address for --http (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8090, help="port for --http (default: %(default)s)")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until the client leaves (stdio) or the process is stopped (HTTP).

    Raises:
        ValueError: a flag's value does not fit, or the model cannot be loaded.
        ImportError: the extra ``mcp`` is not installed.
    """
    from prorank._optional import check

    check("mcp", extra="mcp")
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be between 0 and 65535, got {args.port}")
    from prorank.integrations.mcp import make_server

    server = make_server(load_reranker(args), instruction=args.instruction)
    if args.http:
        server.run("streamable-http", host=args.host, port=args.port)
    else:
        server.run("stdio")
    return 0
