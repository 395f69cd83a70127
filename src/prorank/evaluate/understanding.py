"""Prompt understanding: does the model answer, and rightly? Each measure is defined here, once.

The unit is a (query, document) prompt with a binary judgment. What counts as an answer is
:mod:`prorank.prompt.answers`, which warmup rewards with. Format success rate and accuracy are the paper's measures (its
code is not public; strictness about white space and the end of the turn is ours); the others are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prorank.prompt.answers import parse_answer_ids
from prorank.prompt.measures import auc, balanced_accuracy_score

__all__ = [
    "Prompted",
    "accuracy",
    "auc",
    "balanced_accuracy",
    "format_success",
    "frequent_malformed",
    "label_mass",
    "positive_share",
    "resampled",
    "understanding",
]


class Prompted(NamedTuple):
    """One prompt and what the model made of it."""

    relevant: bool
    """The judgment."""
    answer: int | None
    """What the greedy answer claims (0 or 1); None where it is malformed."""
    text: str
    """The greedy answer as text, special tokens spelled out."""
    margin: float
    """logit of the relevant label word minus that of the irrelevant one, at the answer's position."""
    mass: float
    """Probability of the two label words together, at the answer's position, over the whole vocabulary."""

    @classmethod
    def of(
        cls, relevant: bool, completion_ids: Sequence[int], text: str, logits: npt.NDArray[np.float32],
        label_ids: tuple[int, int], end_id: int,
    ) -> Prompted:  # fmt: skip
        """From the greedy completion's ids and the logits ``(vocabulary,)`` at its first position."""
        irrelevant, relevant_logit = (float(logits[i]) for i in label_ids)
        answer = parse_answer_ids(completion_ids, label_ids, end_id)
        return cls(relevant, answer, text, relevant_logit - irrelevant, label_mass(logits, label_ids))


def label_mass(logits: npt.ArrayLike, label_ids: Sequence[int]) -> float:
    """sum over the label ids of softmax(logits)[id], over the whole vocabulary; a share in [0, 1]. Ours."""
    values = np.asarray(logits, dtype=np.float64)
    values = np.exp(values - values.max())
    return float(values[list(label_ids)].sum() / values.sum())


def format_success(prompts: Sequence[Prompted]) -> float:
    """(prompts whose greedy answer is exactly a label word and then the end of the turn) / prompts. The paper's."""
    return _mean([prompt.answer is not None for prompt in prompts])


def accuracy(prompts: Sequence[Prompted]) -> float:
    """(prompts whose greedy answer is well-formed and agrees with the judgment) / prompts. The paper's."""
    return _mean([prompt.answer == int(prompt.relevant) for prompt in prompts])


def balanced_accuracy(prompts: Sequence[Prompted]) -> float:
    """(accuracy on relevant prompts + accuracy on irrelevant ones) / 2; always the same answer gives 0.5. Ours."""
    right = [[p.answer == int(p.relevant) for p in prompts if p.relevant == relevant] for relevant in (True, False)]
    return balanced_accuracy_score(*right)


def positive_share(prompts: Sequence[Prompted]) -> float:
    """(answers "relevant") / (well-formed answers); 0 or 1 is a collapsed policy, 0 also where none is formed. Ours."""
    return _mean([prompt.answer == 1 for prompt in prompts if prompt.answer is not None])


def margin_auc(prompts: Sequence[Prompted]) -> float:
    """:func:`auc` of the prompts' margins: what the model knows, whether or not it answers in form. Ours."""
    return auc([p.margin for p in prompts if p.relevant], [p.margin for p in prompts if not p.relevant])


def mean_mass(prompts: Sequence[Prompted]) -> float:
    """Mean over prompts of the two label words' probability at the answer's position (whole vocabulary). Ours."""
    return _mean([prompt.mass for prompt in prompts])


MEASURES: dict[str, Callable[[Sequence[Prompted]], float]] = {
    "format_success": format_success,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "positive_share": positive_share,
    "margin_auc": margin_auc,
    "label_mass": mean_mass,
}
"""Name -> function; the docstrings are the definitions that a report prints."""


def understanding(
    prompts: Sequence[Prompted], *, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Every measure as (value, low, high) with a 95 % percentile bootstrap interval over prompts."""
    return {name: resampled(function, prompts, resamples=resamples, seed=seed) for name, function in MEASURES.items()}


def resampled(
    function: Callable[[Sequence[Prompted]], float], prompts: Sequence[Prompted], *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """(value, low, high): the function of the prompts, and of samples of them with replacement."""
    if not prompts:
        return 0.0, 0.0, 0.0
    rng = np.random.default_rng(seed)
    values = [function([prompts[i] for i in rng.integers(0, len(prompts), len(prompts))]) for _ in range(resamples)]
    low, high = np.quantile(values, [0.025, 0.975]) if values else (0.0, 0.0)
    return function(prompts), float(low), float(high)


def frequent_malformed(prompts: Sequence[Prompted], count: int = 5) -> list[tuple[str, int]]:
    """The most frequent malformed answers and how often each came; equally frequent ones in alphabetical order."""
    counted = Counter(prompt.text for prompt in prompts if prompt.answer is None)
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:count]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
