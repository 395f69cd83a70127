"""Hosted rerank services that speak the Cohere, Jina or Voyage format, and servers that copy one of them.

The key comes from the environment (``COHERE_API_KEY``, ``JINA_API_KEY``, ``VOYAGE_API_KEY``) and is never logged or
recorded. Another server of the same format gets ``PRORANK_PEER_KEY`` if that is set, never the maker's key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prorank.evaluate.http import JsonService, ServiceError
from prorank.evaluate.systems import Scored

__all__ = ["FORMATS", "RerankServiceSystem"]


class _Format(NamedTuple):
    base_url: str
    path: str
    results: str
    """Field of the answer that holds the results."""
    limit: str
    """Field of the request that says how many results to return."""
    key: str


FORMATS = {
    "cohere": _Format("https://api.cohere.com", "/v2/rerank", "results", "top_n", "COHERE_API_KEY"),
    "jina": _Format("https://api.jina.ai", "/v1/rerank", "results", "top_n", "JINA_API_KEY"),
    "voyage": _Format("https://api.voyageai.com", "/v1/rerank", "data", "top_k", "VOYAGE_API_KEY"),
}
"""By format: where the service is, and the names of the fields (their public API references)."""


class RerankServiceSystem:
    """Scores candidates by a rerank service.

    Args:
        form: ``cohere``, ``jina`` or ``voyage``.
        model: the service's name of the model.
        base_url: another server of the same format; such a one may need no key.
    """

    def __init__(self, form: str, model: str, base_url: str | None = None, **options: Any) -> None:
        if form not in FORMATS:
            raise ValueError(f"baseline: expected one of {', '.join(FORMATS)}, got {form!r}")
        if not model:
            raise ValueError(f"baseline: {form} needs a model: {form}:MODEL")
        self.format = FORMATS[form]
        self.name = f"{form}-{model}"
        self.model = model
        self.service = JsonService(
            base_url or self.format.base_url,
            key_variables=("PRORANK_PEER_KEY",) if base_url else (self.format.key,),
            key_required=base_url is None,
            **options,
        )
        self._description = {"kind": f"{form} rerank service", "model": model, "service": self.service.base_url}

    def describe(self) -> Mapping[str, Any]:
        return self._description

    def score(self, query: str, documents: Sequence[str]) -> Scored:
        if not documents:
            return Scored(np.zeros(0, dtype=np.float32), 0)
        body = {"model": self.model, "query": query, "documents": list(documents), self.format.limit: len(documents)}
        answer = self.service.post(self.format.path, body)
        scores = np.full(len(documents), np.nan, dtype=np.float32)
        try:
            for result in answer[self.format.results]:
                if not 0 <= result["index"] < len(documents):
                    raise IndexError(f"index {result['index']} of {len(documents)} documents")
                scores[result["index"]] = result["relevance_score"]
        except (KeyError, TypeError, IndexError, ValueError) as error:
            kind = self._description["kind"]
            raise ServiceError(f"{self.name}: the answer is not in the format of a {kind}: {error!r}") from None
        if np.isnan(scores).any():
            raise ServiceError(f"{self.name}: {int(np.isnan(scores).sum())} of {len(documents)} documents got no score")
        return Scored(scores, _tokens(answer))


def _tokens(answer: Mapping[str, Any]) -> int:
    usage = answer.get("usage") or {}
    return int(usage.get("total_tokens") or usage.get("prompt_tokens") or 0) if isinstance(usage, Mapping) else 0
