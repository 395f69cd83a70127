"""Model Context Protocol: a server with the tools ``rerank_documents`` and ``score_pairs``.

from prorank.integrations.mcp import make_server

make_server(Reranker.from_pretrained()).run("stdio")  # what `prorank mcp` does
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from prorank._optional import require
from prorank._version import __version__

require("mcp", extra="mcp")
from mcp.server import MCPServer  # noqa: E402
from mcp.server.mcpserver.exceptions import ToolError  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

from prorank.reranker import Reranker  # noqa: E402

__all__ = ["Pair", "Ranked", "Result", "Score", "Scores", "make_server"]

MAX_TEXTS = 1000
"""Documents or pairs of one call."""

T = TypeVar("T")


class Passage(BaseModel):
    """The part of a document that its score is about."""

    text: str
    start: int = Field(description="First character in the document.")
    end: int = Field(description="Behind the last one.")


class Result(BaseModel):
    """One document's place."""

    rank: int = Field(description="From 1, the most relevant.")
    index: int = Field(description="The document's place in the list that was given, from 0.")
    margin: float = Field(description="Logit of relevance: what the order goes by.")
    probability: float = Field(description="Probability of relevance, 0 to 1.")
    text: str | None = None
    chunk: Passage | None = None


class Ranked(BaseModel):
    """What rerank_documents answers."""

    results: list[Result]
    left_out: int = Field(description="Documents below min_score.")


class Pair(BaseModel):
    """A query and a document."""

    query: str
    document: str


class Score(BaseModel):
    """One pair's score."""

    margin: float
    probability: float


class Scores(BaseModel):
    """What score_pairs answers, in the pairs' order."""

    scores: list[Score]


Instruction = Annotated[str | None, Field(description="What makes a document relevant, if it is not the usual.")]


def make_server(reranker: Reranker, *, instruction: str | None = None) -> MCPServer[Any]:
    """The server; run it over stdio or HTTP, or give it to a client in the same process.

    Args:
        instruction: what makes a document relevant where a call does not say.

    Raises:
        ImportError: the extra ``mcp`` is not installed.
    """
    default = instruction
    server: MCPServer[Any] = MCPServer(
        "prorank",
        version=__version__,
        instructions="Order passages by how relevant they are to a query, or score (query, document) pairs.",
        log_level="WARNING",
    )

    @server.tool(title="Rerank documents")
    async def rerank_documents(
        query: Annotated[str, Field(min_length=1)],
        documents: Annotated[list[str], Field(max_length=MAX_TEXTS, description="Texts, in any order.")],
        top_k: Annotated[int | None, Field(ge=1, description="How many to return; all by default.")] = None,
        instruction: Instruction = None,
        min_score: Annotated[float | None, Field(ge=0, le=1, description="Least probability of a result.")] = None,
        return_documents: Annotated[bool, Field(description="Whether results carry the whole text.")] = True,
        return_chunks: Annotated[bool, Field(description="Whether they carry the part that was scored.")] = False,
    ) -> Ranked:
        """Order documents from most to least relevant to a query, each with a probability of relevance."""

        def ranked() -> Ranked:
            found = reranker.rank(
                query, documents, top_k=top_k, instruction=instruction or default, min_score=min_score,
                return_documents=return_documents, return_chunks=return_chunks,
            )  # fmt: skip
            return Ranked(results=[Result(**row) for row in found.to_dicts()], left_out=found.left_out)

        return await _in_thread(ranked)

    @server.tool(title="Score pairs")
    async def score_pairs(
        pairs: Annotated[list[Pair], Field(max_length=MAX_TEXTS)], instruction: Instruction = None
    ) -> Scores:
        """How relevant each document is to its query: margin (a logit) and probability, in the order of the pairs."""

        def scored() -> Scores:
            margins = reranker.score(
                [(pair.query, pair.document) for pair in pairs], instruction=instruction or default
            )
            both = zip(margins, reranker.probability(margins), strict=True)
            return Scores(scores=[Score(margin=float(m), probability=float(p)) for m, p in both])

        return await _in_thread(scored)

    return server


async def _in_thread(function: Callable[[], T]) -> T:
    """The event loop stays free; what is wrong with the input is an answer, not a crash."""
    try:
        return await asyncio.to_thread(function)
    except (ValueError, TypeError) as error:
        raise ToolError(str(error)) from None
