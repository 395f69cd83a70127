"""Greedy answers of a few tokens, the first one by the scoring path itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.reranker import Reranker
from prorank.types import EncodedGroup

__all__ = ["Greedy", "greedy_answers"]


class Greedy(NamedTuple):
    """The greedy answer to one prompt."""

    completion_ids: tuple[int, ...]
    """At most ``limit`` ids, the end of the turn included where it came."""
    logits: npt.NDArray[np.float32]
    """``(vocabulary,)`` at the first position."""


def greedy_answers(reranker: Reranker, group: EncodedGroup, limit: int = 4) -> list[Greedy]:
    """What the model answers to every prompt of a group, by always taking the likeliest token.

    The first token is ``backend.last_logits``, so what is measured is what is ranked by. Further tokens come from the
    backend's transformers model with its cache, one prompt at a time (no padding); from ``last_logits`` again where
    the backend holds no such model.

    Raises:
        ValueError: the backend computes no full-vocabulary logits (an exported model): analyse the checkpoint itself.
    """
    backend: Any = reranker.backend
    if not backend.capabilities.answers:
        raise ValueError(f"analyze needs full-vocabulary logits, which backend {backend.name} does not compute")
    end_id = reranker.encoder.end_id
    logits = backend.last_logits(group)
    answers = []
    for row, first_logits in enumerate(logits):
        prompt = [*group.prefix_ids, *group.own_ids[row]]
        first = int(first_logits.argmax())
        completion = [first]
        if first != end_id and limit > 1:
            further = _by_model if backend.capabilities.holds_model else _by_backend
            completion += further(backend, [*prompt, first], end_id, limit - 1)
        answers.append(Greedy(tuple(completion), first_logits))
    return answers


def _by_model(backend: Any, ids: list[int], end_id: int, limit: int) -> list[int]:
    import torch

    model = backend.model
    found: list[int] = []
    past = None
    with torch.inference_mode():
        step = torch.as_tensor([ids], device=model.device)
        while len(found) < limit and (not found or found[-1] != end_id):
            output = model(input_ids=step, past_key_values=past, use_cache=True, logits_to_keep=1)
            past = output.past_key_values
            found.append(int(output.logits[0, -1].argmax()))
            step = torch.as_tensor([[found[-1]]], device=model.device)
    return found


def _by_backend(backend: Any, ids: Sequence[int], end_id: int, limit: int) -> list[int]:
    found: list[int] = []
    while len(found) < limit and (not found or found[-1] != end_id):
        found.append(int(backend.last_logits(EncodedGroup([], [[*ids, *found]]))[0].argmax()))
    return found
