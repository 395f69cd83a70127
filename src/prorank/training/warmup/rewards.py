"""Rewards of a completion, built on the primitives that `prorank analyze` measures with.

A reward function is ``(completion, label) -> float``: a :class:`Completion` and the judged relevance of its prompt
(0 or 1, or a grade in between). The paper rewards output format and agreement with the label; the values are ours.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prorank.prompt.answers import first_label, format_score_ids

__all__ = ["BUILT_IN", "Completion", "Reward", "RewardFunction", "format_reward", "relevance_reward", "resolve_rewards"]


class Completion(NamedTuple):
    """What a policy generated for one prompt."""

    ids: tuple[int, ...]
    """Token ids, the end-of-turn id included where it was generated; -1 stands for "any other token" (exact mode)."""
    label_ids: tuple[int, int]
    """(irrelevant, relevant)."""
    end_id: int
    decode: Callable[[Sequence[int]], str]
    """Token ids -> text, for rewards that read text."""

    @property
    def text(self) -> str:
        """The completion as text, without special tokens."""
        return self.decode([i for i in self.ids if i >= 0])


RewardFunction = Callable[[Completion, float], float]


@dataclass(frozen=True)
class Reward:
    """A reward function and its weight in the advantage."""

    name: str
    function: RewardFunction
    weight: float = 1.0


def format_reward(completion: Completion, label: float) -> float:
    """0.5 for starting with a label word, 1.0 for a well-formed answer (label word, then the end of the turn).

    Graded, because a base at 0 % format success would otherwise never be rewarded. 1.0 exactly where
    :func:`prorank.prompt.answers.format_score_ids` says so. ``label`` plays no part.
    """
    del label
    start = first_label(completion.ids, completion.label_ids) is not None
    return 0.5 * start + 0.5 * format_score_ids(completion.ids, completion.label_ids, completion.end_id)


def relevance_reward(completion: Completion, label: float) -> float:
    """1 - |answer - label| for the answer that the first token gives, 0 where it is no label word.

    For labels 0 and 1: agreement. A grade between (0.5: partly relevant) pays both answers in part. Whether the turn
    ends right after is the format reward's business: kept apart, the two can be normalised apart.
    """
    answer = first_label(completion.ids, completion.label_ids)
    return 0.0 if answer is None else 1.0 - abs(answer - float(label))


BUILT_IN: dict[str, RewardFunction] = {"format": format_reward, "relevance": relevance_reward}


def resolve_rewards(weights: Sequence[tuple[str, float]]) -> tuple[Reward, ...]:
    """Rewards by name or import path, with their weights; those of weight 0 are left out.

    Args:
        weights: pairs of ``format``, ``relevance`` or ``package.module:function``, and a weight.

    Raises:
        ValueError: a name is unknown, a path cannot be imported, or nothing is left.
    """
    rewards = []
    for name, weight in weights:
        if weight == 0:
            continue
        rewards.append(Reward(name, BUILT_IN[name] if name in BUILT_IN else _imported(name), float(weight)))
    if not rewards:
        raise ValueError("rewards: every weight is 0, so there is nothing to learn from")
    return tuple(rewards)


def _imported(path: str) -> RewardFunction:
    module_name, _, name = path.partition(":")
    if not name:
        raise ValueError(
            f"rewards: {path!r} is neither {' nor '.join(BUILT_IN)} nor a path like package.module:function"
        )
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"rewards: {path!r} cannot be imported: {error}") from error
    if not callable(function):
        raise ValueError(f"rewards: {path!r} is not a function (completion, label) -> float")
    return function  # type: ignore[no-any-return]
