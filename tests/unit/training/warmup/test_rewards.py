"""Rewards: the primitives of the analysis, graded; user functions by import path."""

from __future__ import annotations

import pytest

from prorank.prompt.answers import accuracy_score_ids, format_score_ids
from prorank.training.warmup.rewards import Completion, format_reward, relevance_reward, resolve_rewards

ZERO, ONE, END, OTHER = 10, 11, 2, 7


def completion(*ids: int) -> Completion:
    return Completion(ids, (ZERO, ONE), END, lambda found: " ".join(map(str, found)))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((ONE, END), 1.0),
        ((ZERO, END), 1.0),
        ((ONE, OTHER), 0.5),
        ((ZERO, -1), 0.5),
        ((ONE,), 0.5),
        ((OTHER, END), 0.0),
        ((OTHER, ONE), 0.0),
        ((END,), 0.0),
        ((-1,), 0.0),
        ((), 0.0),
    ],
)
def test_format_is_graded(ids, expected):
    assert format_reward(completion(*ids), 1) == expected


@pytest.mark.parametrize("ids", [(ONE, END), (ZERO, END), (ONE, OTHER), (OTHER, END), (END,), (ONE,)])
@pytest.mark.parametrize("label", [0, 1])
def test_full_reward_is_the_metric(ids, label):
    """Format 1.0 exactly where the analysis counts a success; both rewards full exactly where it counts a right one."""
    full = format_reward(completion(*ids), label) == 1.0
    assert full == bool(format_score_ids(ids, (ZERO, ONE), END))
    right = full and relevance_reward(completion(*ids), label) == 1.0
    assert right == bool(accuracy_score_ids(ids, (ZERO, ONE), END, bool(label)))


@pytest.mark.parametrize(("label", "one", "zero"), [(1, 1.0, 0.0), (0, 0.0, 1.0), (0.75, 0.75, 0.25)])
def test_relevance_agrees_with_the_label_graded_or_not(label, one, zero):
    assert relevance_reward(completion(ONE, END), label) == one
    assert relevance_reward(completion(ZERO, END), label) == zero
    assert relevance_reward(completion(OTHER, END), label) == 0.0


def length_reward(found: Completion, label: float) -> float:
    return len(found.text) * label


def test_user_function_by_import_path():
    rewards = resolve_rewards([("format", 0.5), ("relevance", 0), ("test_rewards:length_reward", 2.0)])
    assert [(r.name, r.weight) for r in rewards] == [("format", 0.5), ("test_rewards:length_reward", 2.0)]
    assert rewards[1].function(completion(OTHER, END), 1.0) == 3.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([("fromat", 1.0)], "fromat"),
        ([("no.such.module:f", 1.0)], "cannot be imported"),
        ([("math:nothing", 1.0)], "cannot be imported"),
        ([("math:pi", 1.0)], "not a function"),
        ([("format", 0.0)], "nothing to learn"),
    ],
)
def test_bad_rewards_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        resolve_rewards(weights)
