"""Losses of stage 2: pure functions of the margins of lists; they know no model, no text and no configuration file.

Everywhere Q is the number of lists and L the length of the longest one:

- ``margins``: ``(Q, L)`` float32, logit("1") - logit("0");
- ``targets``: ``(Q, L)`` float32, graded relevance, or a teacher's scores (any scale a list shares);
- ``mask``: ``(Q, L)`` bool, True where there is a document; what stands at False is never read.

A label loss takes relevance, a teacher loss a teacher's scores. Each returns a scalar, averaged as its docstring says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F

from prorank.training.refine.config import LABEL_LOSSES

__all__ = ["LOSSES", "ListLoss", "combined"]


class ListLoss(NamedTuple):
    """A weighted sum of losses and its parts."""

    total: torch.Tensor
    """Scalar with gradient."""
    parts: Mapping[str, float]
    """Name -> value before weighting, detached; only of losses that had anything to read."""


def bce(margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Pointwise binary cross-entropy of sigmoid(margin) with relevance clipped to [0, 1]; mean over documents.

    It and :func:`balanced_bce` alone care where 0 lies: they keep the answer "1" for what is relevant.
    """
    return F.binary_cross_entropy_with_logits(margins[mask], targets[mask].clamp(0, 1))


def balanced_bce(margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """:func:`bce` with both classes weighing the same: the mean of its means over relevant and irrelevant documents.

    With seven rivals to a relevant document, ``bce`` moves the margin's 0 to where one document in eight is relevant;
    here it stays where both are equally likely, whatever the length of the lists.
    """
    wanted = targets[mask].clamp(0, 1)
    costs = F.binary_cross_entropy_with_logits(margins[mask], wanted, reduction="none")
    classes = [costs[chosen].mean() for chosen in (wanted > 0, wanted <= 0) if bool(chosen.any())]
    return torch.stack(classes).mean()


def softmax(
    margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, *, temperature: float = 1.0
) -> torch.Tensor:
    """Contrastive cross-entropy: every relevant document against the irrelevant ones of its list.

    -log(exp(m+/T) / (exp(m+/T) + sum over irrelevant documents of exp(m/T))), a mean over relevant documents weighted
    by relevance (InfoNCE; van den Oord et al. 2018, arXiv 1807.03748). Other relevant documents are no rivals; a list
    without an irrelevant one teaches nothing.
    """
    scaled = margins / temperature
    irrelevant = mask & (targets <= 0)
    positive = mask & (targets > 0) & irrelevant.any(-1, keepdim=True)
    if not bool(positive.any()):
        return margins.sum() * 0.0
    rows, _ = positive.nonzero(as_tuple=True)
    rivals = scaled[rows].masked_fill(~irrelevant[rows], -torch.inf).logsumexp(-1)
    weight = targets[positive]
    return (F.softplus(rivals - scaled[positive]) * weight).sum() / weight.sum()


def listnet(margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between softmax(relevance) and softmax(margins); mean over lists (Cao et al., ICML 2007)."""
    wanted = targets.masked_fill(~mask, -torch.inf).softmax(-1)
    logs = margins.masked_fill(~mask, -torch.inf).log_softmax(-1).masked_fill(~mask, 0.0)
    return -(wanted * logs).sum(-1).mean()


def ranknet(margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """log2(1 + exp(m_j - m_i)) for every pair with relevance i > j; mean over pairs (Burges et al., ICML 2005)."""
    return _pairwise(margins, targets, mask, weights=None)


def lambda_loss(
    margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, *, mu: float = 10.0, k: int | None = None
) -> torch.Tensor:
    """LambdaLoss with NDCG-Loss2++ weights (Wang et al., CIKM 2018, equations 17 and 18); mean over pairs.

    A pair with relevance i > j at ranks r_i, r_j (by margin, from 1) costs w * log2(1 + exp(m_j - m_i)) with
    w = |G_i - G_j| * (mu * |1/D(d) - 1/D(d + 1)| + |1/D(r_i) - 1/D(r_j)|), where d = |r_i - r_j|, D(r) = log2(1 + r)
    and G = (2^relevance - 1) / ideal DCG.

    Args:
        mu: weight of the NDCG-Loss2 part beside LambdaRank's.
        k: only pairs with a document in the top k count; None: all.
    """
    with torch.no_grad():
        length = margins.shape[-1]
        order = margins.masked_fill(~mask, -torch.inf).argsort(dim=-1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(
            -1, order, torch.arange(1, length + 1, device=order.device).expand_as(order)
        )
        relevance = targets.clamp(min=0).masked_fill(~mask, 0.0)
        ideal = relevance.sort(-1, descending=True).values.exp2() - 1
        top = length if k is None else k
        inverse = 1 / torch.log2(1.0 + torch.arange(1, length + 2, device=margins.device, dtype=margins.dtype))
        best = (ideal * inverse[:length])[:, :top].sum(-1, keepdim=True).clamp(min=1e-10)
        gain = (relevance.exp2() - 1) / best
        apart = (rank[:, :, None] - rank[:, None, :]).abs()
        step = (inverse[(apart - 1).clamp(min=0)] - inverse[apart.clamp(max=length)]).abs()
        swap = (inverse[rank - 1][:, :, None] - inverse[rank - 1][:, None, :]).abs()
        weights = (gain[:, :, None] - gain[:, None, :]).abs() * (mu * step + swap)
        counted = torch.minimum(rank[:, :, None], rank[:, None, :]) <= top
    return _pairwise(margins, targets, mask, weights=weights, counted=counted)


def margin_mse(margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared error between the student's and the teacher's score differences to the list's first document.

    Mean over the other documents (Hofstätter et al. 2020, arXiv 2010.02666). The teacher's scale is copied too, so it
    should be one of logits.
    """
    rest = mask[:, 1:] & mask[:, :1]
    difference = (margins[:, :1] - margins[:, 1:]) - (targets[:, :1] - targets[:, 1:])
    return difference[rest].square().mean()


def kl(margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Listwise distillation: KL(softmax(teacher / T) || softmax(margins)); mean over lists.

    Args:
        temperature: of the teacher alone: it makes up for the teacher's scale.
    """
    wanted = (targets / temperature).masked_fill(~mask, -torch.inf).log_softmax(-1).masked_fill(~mask, 0.0)
    logs = margins.masked_fill(~mask, -torch.inf).log_softmax(-1).masked_fill(~mask, 0.0)
    return (wanted.exp() * (wanted - logs)).masked_fill(~mask, 0.0).sum(-1).mean()


LOSSES: Mapping[str, Callable[..., torch.Tensor]] = {
    "softmax": softmax, "bce": bce, "balanced_bce": balanced_bce, "ranknet": ranknet, "lambda": lambda_loss,
    "listnet": listnet, "kl": kl, "margin_mse": margin_mse,
}  # fmt: skip
"""Name in the settings -> function."""


def combined(
    weights: Mapping[str, float],
    margins: torch.Tensor,
    mask: torch.Tensor,
    *,
    relevance: torch.Tensor | None = None,
    teacher: torch.Tensor | None = None,
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> ListLoss:
    """The weighted sum of losses over lists that have what each of them reads.

    Args:
        weights: loss name -> weight.
        relevance: ``(Q, L)`` judgments, NaN where unknown, which no label loss reads; or None. Lists without both a
            relevant and an irrelevant document teach the label losses nothing but ``bce`` and ``balanced_bce``.
        teacher: ``(Q, L)`` scores, or None.
        temperature: of ``softmax``.
        teacher_temperature: of ``kl``.
    """
    total = margins.sum() * 0.0
    parts = {}
    for name, weight in weights.items():
        targets = relevance if name in LABEL_LOSSES else teacher
        if targets is None or not weight:
            continue
        options = {"softmax": {"temperature": temperature}, "kl": {"temperature": teacher_temperature}}.get(name, {})
        counted = mask & ~targets.isnan() if name in LABEL_LOSSES else mask
        rows = counted.any(-1)
        if name in LABEL_LOSSES and name not in ("bce", "balanced_bce"):
            best = targets.masked_fill(~counted, -torch.inf).amax(-1)
            rows = (best > targets.masked_fill(~counted, torch.inf).amin(-1)) & (best > 0)
        if not bool(rows.any()):
            continue
        value = LOSSES[name](margins[rows], targets.nan_to_num()[rows], counted[rows], **options)
        parts[name] = float(value.detach())
        total = total + weight * value
    return ListLoss(total, parts)


def _pairwise(
    margins: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    *,
    weights: torch.Tensor | None,
    counted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over pairs with target i > j of weight * log2(1 + exp(m_j - m_i)); 0 where there is no pair."""
    pairs = (targets[:, :, None] > targets[:, None, :]) & mask[:, :, None] & mask[:, None, :]
    if counted is not None:
        pairs = pairs & counted
    cost = F.softplus(margins[:, None, :] - margins[:, :, None]) / math.log(2)
    if weights is not None:
        cost = cost * weights
    return cost[pairs].sum() / max(int(pairs.sum()), 1)
