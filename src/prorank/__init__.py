"""ProRank: train and run small-language-model document rerankers.

The names below are the public API; everything heavy is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prorank._version import __version__ as __version__

__all__ = ["AsyncClient", "Client", "Document", "PromptTemplate", "RankResult", "Reranker", "TrainRun", "train"]

if TYPE_CHECKING:
    from prorank.client import AsyncClient, Client
    from prorank.pipeline.train import TrainRun, train
    from prorank.prompt.template import PromptTemplate
    from prorank.reranker import Reranker
    from prorank.types import Document, RankResult

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "Document": "types",
    "PromptTemplate": "prompt.template",
    "RankResult": "types",
    "Reranker": "reranker",
    "TrainRun": "pipeline.train",
    "train": "pipeline.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prorank' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"prorank.{_HOMES[name]}"), name)
