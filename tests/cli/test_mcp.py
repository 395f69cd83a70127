"""``prorank mcp`` through the official client: over stdio as an assistant starts it, over HTTP, and in one process."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="mcp is part of the extra 'mcp'")

from mcp import Client, StdioServerParameters

from prorank import Reranker
from prorank.integrations.mcp import make_server

QUERY = "how do vaccines work"
TEXTS = ["bread is baked", "vaccines train the immune system", "", "memory cells"]


def command(model: Path) -> list[str]:
    return ["-m", "prorank.cli.main", "mcp", "--model", str(model), "--dtype", "float32", "--backend", "torch"]


def expected(model: Path) -> list[tuple[int, float]]:
    reranker = Reranker.from_pretrained(model, dtype="float32", backend="torch")
    return [(result.index, result.margin) for result in reranker.rank(QUERY, TEXTS)]


async def test_over_stdio(tiny_llama_dir: Path) -> None:
    server = StdioServerParameters(command=sys.executable, args=command(tiny_llama_dir), env=dict(os.environ))
    wanted = expected(tiny_llama_dir)
    async with Client(server, read_timeout_seconds=120) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"rerank_documents", "score_pairs"}
        assert all(tool.description for tool in tools.values())
        answer = await client.call_tool("rerank_documents", {"query": QUERY, "documents": TEXTS})
        rows = answer.structured_content["results"]
        assert [row["index"] for row in rows] == [index for index, _ in wanted]
        assert [row["margin"] for row in rows] == pytest.approx([margin for _, margin in wanted], abs=1e-4)
        assert [row["text"] for row in rows] == [TEXTS[row["index"]] for row in rows]
        pairs = [{"query": QUERY, "document": TEXTS[index]} for index, _ in wanted]
        scores = (await client.call_tool("score_pairs", {"pairs": pairs})).structured_content["scores"]
        assert [row["margin"] for row in scores] == pytest.approx([margin for _, margin in wanted], abs=1e-4)


async def test_over_http(tiny_llama_dir: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, *command(tiny_llama_dir), "--http", "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            answer = await client.call_tool("rerank_documents", {"query": QUERY, "documents": TEXTS, "top_k": 1})
            assert [row["index"] for row in answer.structured_content["results"]] == [expected(tiny_llama_dir)[0][0]]
    finally:
        process.terminate()
        process.communicate(timeout=30)


async def test_options_and_bad_input(fake_reranker: Reranker) -> None:
    ranked = fake_reranker.rank(QUERY, TEXTS, instruction="be brief")
    async with Client(make_server(fake_reranker, instruction="be brief")) as client:

        async def rerank(**options: Any) -> Any:
            return await client.call_tool("rerank_documents", {"query": QUERY, "documents": TEXTS, **options})

        content = (await rerank(min_score=ranked[1].probability, return_documents=False)).structured_content
        assert [row["index"] for row in content["results"]] == [r.index for r in ranked[:2]]
        assert content["left_out"] == 2
        assert all(row["text"] is None for row in content["results"])
        (first,) = (await rerank(top_k=1, return_chunks=True)).structured_content["results"]
        assert first["chunk"]["text"] == TEXTS[first["index"]]
        for options, field in (
            ({"top_k": 0}, "top_k"),
            ({"min_score": 2}, "min_score"),
            ({"documents": 5}, "documents"),
        ):
            refused = await rerank(**options)
            assert refused.is_error
            assert re.search(field, refused.content[0].text)
        assert (await client.call_tool("score_pairs", {"pairs": [["a", "b"]]})).is_error
        long = await rerank(instruction="word " * 5000)
        assert long.is_error
        assert "leaves no room for a document" in long.content[0].text
