"""A server on a real socket that speaks vLLM's ``/classify`` and ``/pooling`` over an exported folder: the formats are
vLLM's (ClassificationCompletionRequest, PoolingCompletionRequest), the model is transformers'."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class ClassifyServer:
    """Remembers what it was asked, as ``requests``.

    Args:
        knows_activation: without, ``use_activation`` is a field like any unknown one: sigmoids all the same.
    """

    def __init__(self, folder: Path, *, knows_activation: bool = True) -> None:
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.knows_activation = knows_activation
        self.requests: list[dict[str, Any]] = []
        self.status = 200
        routes = [Route(f"/{name}", getattr(self, f"_{name}"), methods=["POST"]) for name in ("classify", "pooling")]
        config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="warning", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(15)

    def _scores(self, body: dict[str, Any]) -> list[list[float]]:
        found = body["input"]
        prompts = [found] if isinstance(found, str) or isinstance(found[0], int) else found
        scores = []
        for prompt in prompts:
            ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            with torch.no_grad():
                score = self.model(torch.tensor([ids])).logits[0, 0]
            plain = self.knows_activation and body.get("use_activation") is False
            scores.append([float(score if plain else score.sigmoid())])
        return scores

    async def _answer(self, request: Request, field: str) -> JSONResponse:
        body = await request.json()
        self.requests.append(body)
        if self.status != 200:
            return JSONResponse({"error": {"message": "not today", "code": self.status}}, self.status)
        data = [{"index": i, "object": "pooling", field: s} for i, s in enumerate(self._scores(body))]
        return JSONResponse({"id": "pool-1", "object": "list", "model": body["model"], "data": data, "usage": {}})

    async def _classify(self, request: Request) -> JSONResponse:
        return await self._answer(request, "probs")

    async def _pooling(self, request: Request) -> JSONResponse:
        return await self._answer(request, "data")
