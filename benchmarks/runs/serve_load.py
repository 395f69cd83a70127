"""Load for benchmarks/runs/serve.py: requests against a rerank server, every answer checked against known scores."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx


class Job(NamedTuple):
    """A request and what its answer must be."""

    query: str
    documents: list[str]
    margins: list[float] | None
    """Offline margins; None where the server's scores are not ours to check (a peer's)."""
    tokens: int
    """To be computed for it: the shared prefix once, and every document's own."""


@dataclass
class Tally:
    """What came of the requests of one phase."""

    sent: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    wrong: int = 0
    documents: int = 0
    tokens: int = 0
    seconds: float = 0.0
    worst_difference: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Plain JSON data: counts, documents a second, percentiles of the answered ones in milliseconds."""
        ordered = sorted(self.latencies)

        def percentile(share: float) -> float | None:
            return round(1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)], 1) if ordered else None

        return {
            "sent": self.sent,
            "answered": self.answered,
            "refused": self.refused,
            "failed": self.failed,
            "lost": self.sent - self.answered - self.refused - self.failed,
            "wrong": self.wrong,
            "worst_difference": self.worst_difference,
            "documents_per_second": round(self.documents / self.seconds, 2) if self.seconds else None,
            "tokens_per_second": round(self.tokens / self.seconds, 1) if self.seconds else None,
            "seconds": round(self.seconds, 2),
            "p50_ms": percentile(0.50),
            "p95_ms": percentile(0.95),
            "p99_ms": percentile(0.99),
            "errors": self.errors,
        }


async def _ask(client: httpx.AsyncClient, job: Job, tally: Tally, tolerance: float) -> bool:
    """Send one request and check its answer; whether the server took it."""
    body = {"query": job.query, "documents": job.documents, "return_documents": False, "return_margins": True}
    tally.sent += 1
    started = time.perf_counter()
    try:
        response = await client.post("/v1/rerank", json=body)
    except httpx.HTTPError as error:
        tally.failed += 1
        tally.errors[type(error).__name__] = tally.errors.get(type(error).__name__, 0) + 1
        return False
    if response.status_code == 429:
        tally.refused += 1
        return False
    if response.status_code != 200:
        tally.failed += 1
        tally.errors[str(response.status_code)] = tally.errors.get(str(response.status_code), 0) + 1
        return False
    tally.latencies.append(time.perf_counter() - started)
    tally.answered += 1
    tally.documents += len(job.documents)
    tally.tokens += job.tokens
    results = response.json()["results"]
    if len({row["index"] for row in results}) != len(job.documents):
        tally.wrong += 1
    elif job.margins is not None:
        worst = max(abs(row["margin"] - job.margins[row["index"]]) for row in results)
        tally.worst_difference = max(tally.worst_difference, worst)
        tally.wrong += worst > tolerance
    return True


async def closed_loop(url: str, jobs: Sequence[Job], clients: int, seconds: float, tolerance: float) -> Tally:
    """``clients`` of them, each sending its next request when the last one is answered, for ``seconds``."""
    tally = Tally()
    supply = itertools.cycle(jobs)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:
        started = time.perf_counter()

        async def one() -> None:
            while time.perf_counter() - started < seconds:
                if not await _ask(http, next(supply), tally, tolerance):
                    await asyncio.sleep(1)  # refused: a client that asks again at once only makes it worse

        await asyncio.gather(*(one() for _ in range(clients)))
        tally.seconds = time.perf_counter() - started
    return tally


async def open_loop(url: str, jobs: Sequence[Job], per_second: float, seconds: float, tolerance: float) -> Tally:
    """Requests at a fixed rate, whatever becomes of them: what an overload is."""
    tally = Tally()
    supply = itertools.cycle(jobs)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=None)) as http:
        started = time.perf_counter()
        pending = []
        for number in itertools.count():
            due = started + number / per_second
            if due - started >= seconds:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            pending.append(asyncio.ensure_future(_ask(http, next(supply), tally, tolerance)))
        await asyncio.gather(*pending)
        tally.seconds = time.perf_counter() - started
    return tally
