"""Language models behind any OpenAI-compatible endpoint as peers: pointwise by label log-probabilities, or listwise.

A local llama.cpp or vLLM server serves as well as a commercial one. These prompts go out as text, to a chat endpoint;
they are the peers' own and share nothing with :mod:`prorank.prompt` but the words of the task. The key comes from
``OPENAI_API_KEY``; another endpoint gets ``PRORANK_PEER_KEY`` if that is set, never OpenAI's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from prorank.evaluate.http import JsonService, ServiceError
from prorank.evaluate.systems import Scored
from prorank.prompt.presets import PRESETS, TASK

__all__ = ["ListwiseSystem", "PointwiseSystem", "parse_permutation"]

_OPENAI = "https://api.openai.com/v1"
_LABEL_WORDS = PRESETS["prorank"].label_words

_LISTWISE_TASK = (
    "You order passages by how well they answer a search query. Each passage has a number in square brackets. "
    "Answer with the numbers alone, from the most to the least relevant, like [2] > [1] > [3], each exactly once."
)


class _Chat:
    """What both peers share: the endpoint, the model, cutting passages, and the token count."""

    def __init__(self, model: str, base_url: str | None, words: int, **options: Any) -> None:
        if not model:
            raise ValueError("baseline: name the model: openai-pointwise:MODEL[@URL] or openai-listwise:MODEL[@URL]")
        self.model, self.words = model, words
        self.service = JsonService(
            base_url or _OPENAI,
            key_variables=("PRORANK_PEER_KEY",) if base_url else ("OPENAI_API_KEY",),
            key_required=base_url is None,
            **options,
        )

    def ask(self, system: str, user: str, **options: Any) -> tuple[Mapping[str, Any], int]:
        """The first choice and the tokens it took."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = {"model": self.model, "messages": messages, "temperature": 0, **options}
        answer = self.service.post("/chat/completions", body)
        try:
            choice = answer["choices"][0]
            choice["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise ServiceError(f"{self.model}: the answer is not a chat completion: {error!r}") from None
        return choice, int((answer.get("usage") or {}).get("total_tokens") or 0)

    def cut(self, text: str) -> str:
        words = text.split()
        return " ".join(words[: self.words])


class PointwiseSystem:
    """Asks for "1" or "0" about each passage; the score is the difference of their log-probabilities.

    A label that is not among the returned top tokens gets the smallest log-probability listed, an upper bound. From a
    server that returns no log-probabilities the answer itself counts: 1, -1, or 0 where it is neither (many ties).

    Args:
        words: white-space separated words kept of a passage.
        parallel: requests under way at once.
    """

    def __init__(
        self, model: str, base_url: str | None = None, *, words: int = 300, parallel: int = 8, **options: Any
    ) -> None:
        self._chat = _Chat(model, base_url, words, **options)
        self.name = f"pointwise-{model}"
        self.parallel = parallel
        service = self._chat.service.base_url
        self._description = {"kind": "LLM pointwise", "model": model, "service": service, "words": words}

    def describe(self) -> Mapping[str, Any]:
        return self._description

    def score(self, query: str, documents: Sequence[str]) -> Scored:
        with ThreadPoolExecutor(self.parallel) as pool:
            answers = list(pool.map(lambda document: self._one(query, document), documents))
        return Scored(np.array([margin for margin, _ in answers], dtype=np.float32), sum(n for _, n in answers))

    def _one(self, query: str, document: str) -> tuple[float, int]:
        choice, tokens = self._chat.ask(
            TASK,
            f"Query:\n{query}\n\nPassage:\n{self._chat.cut(document)}",
            max_tokens=1,
            logprobs=True,
            top_logprobs=20,
        )
        try:
            listed = choice["logprobs"]["content"][0]["top_logprobs"]
            weights: dict[str, list[float]] = {}
            for token in listed:
                weights.setdefault(token["token"].strip(), []).append(float(token["logprob"]))
            floor = min(value for values in weights.values() for value in values)
        except (KeyError, IndexError, TypeError, ValueError):
            irrelevant, relevant = _LABEL_WORDS
            return {relevant: 1.0, irrelevant: -1.0}.get((choice["message"]["content"] or "").strip(), 0.0), tokens
        irrelevant_weight, relevant_weight = (_log_sum(weights.get(word, [floor])) for word in _LABEL_WORDS)
        return relevant_weight - irrelevant_weight, tokens


class ListwiseSystem:
    """Orders windows of passages from the end of the list to its start, as RankGPT does (Sun et al., EMNLP 2023).

    The score is minus the final position. Numbers that an answer repeats, invents or leaves out are settled by the
    order the window had.

    Args:
        window: passages in one prompt.
        step: passages that the window moves; the overlap carries the best ones upwards.
        words: white-space separated words kept of a passage.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        window: int = 20,
        step: int = 10,
        words: int = 300,
        **options: Any,
    ) -> None:
        if not 1 <= step <= window or window < 2:
            raise ValueError(f"baseline: window and step must satisfy 1 <= step <= window >= 2, got {window}, {step}")
        self._chat = _Chat(model, base_url, words, **options)
        self.name = f"listwise-{model}"
        self.window, self.step = window, step
        service = self._chat.service.base_url
        self._description = {
            "kind": "LLM listwise", "model": model, "service": service, "window": window, "step": step, "words": words
        }  # fmt: skip

    def describe(self) -> Mapping[str, Any]:
        return self._description

    def score(self, query: str, documents: Sequence[str]) -> Scored:
        order = list(range(len(documents)))
        tokens = 0
        for start in window_starts(len(documents), self.window, self.step):
            inside = order[start : start + self.window]
            passages = "\n\n".join(f"[{i}] {self._chat.cut(documents[d])}" for i, d in enumerate(inside, 1))
            request = f"Query: {query}\n\n{passages}\n\nQuery: {query}\nOrder:"
            choice, used = self._chat.ask(_LISTWISE_TASK, request, max_tokens=6 * len(inside) + 20)
            places = parse_permutation(choice["message"]["content"] or "", len(inside))
            order[start : start + self.window] = [inside[place] for place in places]
            tokens += used
        margins = np.zeros(len(documents), dtype=np.float32)
        margins[order] = -np.arange(len(documents), dtype=np.float32)
        return Scored(margins, tokens)


def window_starts(length: int, window: int, step: int) -> list[int]:
    """Where the windows over a list begin, in the order they are asked: from the end, the last one at 0."""
    if length < 2:
        return []
    return [*range(max(length - window, 0), 0, -step), 0]


def parse_permutation(answer: str, length: int) -> list[int]:
    """Places (from 0) in the order the answer gives; ``[n]`` counts from 1. What it leaves out follows in order.

    Bare numbers are read only where there is no number in brackets.
    """
    numbers = re.findall(r"\[(\d+)\]", answer) or re.findall(r"\d+", answer)
    named = [int(number) - 1 for number in numbers if 1 <= int(number) <= length]
    return list(dict.fromkeys([*named, *range(length)]))


def _log_sum(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))
