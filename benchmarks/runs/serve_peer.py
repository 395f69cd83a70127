"""The server that people write: FastAPI around a reranking package, one call a request, no batching between requests.

    python -m benchmarks.runs.serve_peer --engine mxbai --model DIR --port 9000
    python -m benchmarks.runs.serve_peer --engine crossencoder --model DIR --port 9000

It must run where its engine is installed (mxbai-rerank wants transformers 4: an environment of its own) and imports
nothing of prorank. benchmarks/runs/serve.py starts it with --peer-python.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import uvicorn
from fastapi import Body, FastAPI

MAX_LENGTH = 512  # as prorank's default


def load(engine: str, model: str, dtype: str) -> Callable[[str, list[str]], list[tuple[int, float]]]:
    """(query, documents) -> (index, score), best first."""
    if engine == "mxbai":
        from mxbai_rerank import MxbaiRerankV2

        reranker = MxbaiRerankV2(model, torch_dtype=dtype, max_length=MAX_LENGTH)

        def rank(query: str, documents: list[str]) -> list[tuple[int, float]]:
            results = reranker.rank(query, documents, return_documents=False, top_k=len(documents))
            return [(int(one.index), float(one.score)) for one in results]

        return rank

    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(model, max_length=MAX_LENGTH, model_kwargs={"dtype": dtype})

    def rank_pairs(query: str, documents: list[str]) -> list[tuple[int, float]]:
        scores = encoder.predict([(query, document) for document in documents], show_progress_bar=False)
        return sorted(enumerate(map(float, scores)), key=lambda pair: -pair[1])

    return rank_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("mxbai", "crossencoder"), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rank = load(args.engine, args.model, args.dtype)
    app = FastAPI()

    @app.get("/ready")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/rerank")
    def rerank(body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008
        results = rank(body["query"], body["documents"])
        return {"results": [{"index": index, "relevance_score": score} for index, score in results]}

    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
