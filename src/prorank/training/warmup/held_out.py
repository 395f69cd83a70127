"""Held-out answers: does the plain, greedy policy answer in form, rightly, and with both answers in use?

Random and hard negatives are reported apart. It measures the policy as it will be used: no temperature, no prior.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from prorank.files import write_atomic
from prorank.prompt.answers import parse_answer_ids
from prorank.prompt.measures import auc, balanced_accuracy_score
from prorank.training.policy import Policy, pack
from prorank.training.warmup.prompts import QueryPrompts
from prorank.types import EncodedGroup

__all__ = ["HeldOutAnswers", "ask", "divergence", "intervals", "read_answers", "summary", "write_answers"]


class HeldOutAnswers(NamedTuple):
    """One row a (query, document) pair."""

    query: np.ndarray
    """Index of the query."""
    kind: np.ndarray
    """``positive``, ``random`` or ``hard``."""
    margin: np.ndarray
    answer: np.ndarray
    """1, 0, or -1 for a malformed answer."""


def ask(
    policy: Policy, prompts: Sequence[QueryPrompts], encode: Callable[[QueryPrompts], EncodedGroup]
) -> HeldOutAnswers:
    """Greedy answers and margins of every pair."""
    query: list[int] = []
    kind: list[str] = []
    margin: list[float] = []
    answer: list[int] = []
    for index, item in enumerate(prompts):
        margins, answers = _answers_of(policy, encode(item))
        query += [index] * len(margins)
        kind += item.kinds
        margin += margins
        answer += answers
    return HeldOutAnswers(np.array(query), np.array(kind), np.array(margin, dtype=np.float32), np.array(answer))


@torch.no_grad()
def _answers_of(policy: Policy, group: EncodedGroup) -> tuple[list[float], list[int]]:
    """Margins and greedy answers (-1: malformed) of one query's documents: two tokens, by one forward pass.

    No answer other than a label word and the end of the turn is well-formed, so no other continuation is looked at.
    """
    labels = policy.label_ids
    first, branch = policy.logits(pack([group], [[(labels[0],), (labels[1],)]] * len(group.own_ids)))
    after = branch.argmax(-1).view(-1, 2).tolist()
    answers = []
    for row, token in enumerate(first.argmax(-1).tolist()):
        completion = [token, after[row][labels.index(token)]] if token in labels else [token]
        answer = parse_answer_ids(completion, labels, policy.end_id)
        answers.append(-1 if answer is None else answer)
    return (first[:, labels[1]] - first[:, labels[0]]).tolist(), answers


@torch.no_grad()
def divergence(
    policy: Policy, prompts: Sequence[QueryPrompts], encode: Callable[[QueryPrompts], EncodedGroup]
) -> float:
    """Mean over prompts of the exact KL(policy || reference) at the first token, over the whole vocabulary, in nats."""
    found: list[float] = []
    for item in prompts:
        packed = pack([encode(item)])
        now = F.log_softmax(policy.logits(packed)[0], -1)
        with policy.reference() as reference:
            before = F.log_softmax(reference.logits(packed)[0], -1)
        found += (now.exp() * (now - before)).sum(-1).tolist()
    return float(np.mean(found))


def summary(found: HeldOutAnswers) -> dict[str, float]:
    """Format success, share of each answer, and per kind of negative balanced accuracy and AUC."""
    positive = found.kind == "positive"
    result = {
        "format_success": float((found.answer >= 0).mean()),
        "answers_one": float((found.answer == 1).mean()),
        "answers_zero": float((found.answer == 0).mean()),
        "true_positive_rate": float((found.answer[positive] == 1).mean()),
        "margin_positive": float(found.margin[positive].mean()),
    }
    for kind in ("random", "hard"):
        negative = found.kind == kind
        if negative.any():
            result[f"balanced_accuracy_{kind}"] = balanced_accuracy_score(
                found.answer[positive] == 1, found.answer[negative] == 0
            )
            result[f"auc_{kind}"] = auc(found.margin[positive], found.margin[negative])
            result[f"margin_{kind}"] = float(found.margin[negative].mean())
    return result


def intervals(found: HeldOutAnswers, *, samples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals of :func:`summary`, resampling queries with all their documents."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(found.query == q) for q in np.unique(found.query)]
    drawn: dict[str, list[float]] = {}
    for _ in range(samples):
        picked = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        for name, value in summary(HeldOutAnswers(*(column[picked] for column in found))).items():
            drawn.setdefault(name, []).append(value)
    return {name: (float(np.quantile(v, 0.025)), float(np.quantile(v, 0.975))) for name, v in drawn.items()}


def write_answers(path: Path, found: HeldOutAnswers) -> None:
    """Keep answers as JSON."""
    write_atomic(path, json.dumps({name: column.tolist() for name, column in found._asdict().items()}))


def read_answers(path: Path) -> HeldOutAnswers:
    """Read :func:`write_answers`'s form."""
    return HeldOutAnswers(**{name: np.array(column) for name, column in json.loads(path.read_text("utf-8")).items()})
