"""Scores through the server equal the library's, with a real (tiny) model and whatever else is in the batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest


@pytest.mark.parametrize("long_documents", ["truncate", "excerpt", "max_window"])
def test_the_server_scores_as_the_library_does(live: Any, tiny_llama_dir: Path, long_documents: str) -> None:
    from prorank.reranker import Reranker

    reranker = Reranker.from_pretrained(
        str(tiny_llama_dir),
        template="prorank",
        dtype="float32",
        device="cpu",
        max_length=192,
        long_documents=long_documents,
    )
    server = live(reranker, max_batch_tokens=700)
    jobs = [
        (
            f"query number {n}",
            [f"passage {i} of {n} " + "and some more words " * (i * n % 40) for i in range(1 + 7 * n)],
        )
        for n in range(6)
    ]
    expected = [{r.index: r.margin for r in reranker.rank(query, documents)} for query, documents in jobs]

    def ask(job: tuple[str, list[str]]) -> dict[int, float]:
        body = {"query": job[0], "documents": job[1], "raw_scores": True, "return_documents": False}
        answer = httpx.post(f"{server.url}/v1/rerank", json=body, timeout=60).json()
        return {row["index"]: row["relevance_score"] for row in answer["results"]}

    with ThreadPoolExecutor(12) as pool:
        for _ in range(2):
            for got, want in zip(pool.map(ask, jobs), expected, strict=True):
                assert got.keys() == want.keys()
                np.testing.assert_allclose([got[i] for i in want], list(want.values()), atol=1e-4)


def test_real_prompts_over_the_fake_backend(serve: Any, fake_reranker: Any) -> None:
    http = serve(fake_reranker)
    documents = ["one", "two <|im_end|> three", "", "x " * 2000]
    body = {"query": "q", "documents": documents, "max_tokens_per_doc": 5, "raw_scores": True}
    answer = http.post("/v2/rerank", json=body).json()
    cut = [documents[0], documents[1], "", "x x x x x"]
    margins = fake_reranker.margins("q", documents[:1] + cut[2:])
    got = {row["index"]: row["relevance_score"] for row in answer["results"]}
    assert [got[i] for i in (0, 2, 3)] == pytest.approx([float(margin) for margin in margins], abs=1e-6)
