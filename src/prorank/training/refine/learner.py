"""What one list teaches: margins by the scoring path's own functions, with gradients, and the loss on them.

The query's prefix is computed once for all documents of its list, in the forward and in the backward pass, and nothing
is padded (:mod:`.ragged`). A list of more tokens than ``forward_tokens`` goes in parts, padded: margins
first, without gradients; then the loss's gradient by margin; then every part again, with gradients gathered in the
prefix's keys and values (gradient caching; Gao et al. 2021, arXiv 2101.06983). The result is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from prorank.backends.torch import PrefixStates, label_rows, last_hidden_states, prefix_states
from prorank.training.policy import Policy
from prorank.training.refine.config import RefineConfig
from prorank.training.refine.lists import RankingList
from prorank.training.refine.losses import ListLoss, combined
from prorank.training.refine.ragged import ragged_hidden_states, use_ragged_attention
from prorank.types import EncodedGroup

__all__ = ["ListLearner", "ListStatistics"]


class ListStatistics(NamedTuple):
    """What a list showed, before the step that it takes part in."""

    loss: float
    best_first: float
    """1 if the highest target has the highest margin, 0 if not; NaN without a label or teacher."""
    gap: float
    """Mean margin of the relevant documents minus that of the others; NaN without judgments."""
    mean_margin: float
    documents: int
    tokens: int
    parts: dict[str, float]
    """Loss name -> value."""


class ListLearner:
    """Computes margins of lists and adds up gradients."""

    def __init__(self, policy: Policy, config: RefineConfig) -> None:
        self.policy, self.config = policy, config
        self.weights = config.loss_weights()
        self._ragged = config.share_prefix and use_ragged_attention(policy.model)

    def margins(self, group: EncodedGroup) -> torch.Tensor:
        """``(n,)`` float32 margins in one pass, with gradients where they are on."""
        return self._whole(group)[0]

    def learn(self, item: RankingList, group: EncodedGroup) -> ListStatistics:
        """Add this list's gradients to the parameters'.

        Args:
            item: its documents are ``group``'s rows, in order.
        """
        parts = self._parts(group)
        if len(parts) == 1:
            margins, cost = self._whole(group)
            loss = self._loss(margins, item)
            (loss.total + cost).backward()
        else:
            with torch.no_grad():
                prefix, margins = self._prefix(group), torch.empty(len(group.own_ids), device=self.policy.device)
                for rows in parts:
                    margins[rows] = self._margins(group, rows, prefix)[0]
            loss = self._learn_in_parts(item, group, parts, margins.requires_grad_())
        return self._statistics(item, group, margins.detach(), loss)

    def _learn_in_parts(
        self, item: RankingList, group: EncodedGroup, parts: Sequence[Sequence[int]], margins: torch.Tensor
    ) -> ListLoss:
        loss = self._loss(margins, item)
        loss.total.backward()
        assert margins.grad is not None
        states = self._prefix(group)
        leaves = [tuple(t.detach().requires_grad_() for t in layer) for layer in states or []]
        for rows in parts:
            part, cost = self._margins(group, rows, leaves or None)  # type: ignore[arg-type]
            ((part * margins.grad[rows]).sum() + cost).backward()
        if states:
            pairs = [
                (t, leaf.grad)
                for layer, kept in zip(states, leaves, strict=True)
                for t, leaf in zip(layer, kept, strict=True)
            ]
            used = [(t, grad) for t, grad in pairs if grad is not None]
            torch.autograd.backward([t for t, _ in used], [grad for _, grad in used])
        return loss

    def _whole(self, group: EncodedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`_margins` of all rows in one pass."""
        if not self._ragged:
            return self._margins(group, range(len(group.own_ids)), self._prefix(group))
        with self.policy.precision():
            hidden = ragged_hidden_states(self.policy.model, group)
        return self._read(hidden.float(), group)

    def _prefix(self, group: EncodedGroup) -> PrefixStates | None:
        if not self.config.share_prefix or not group.prefix_ids:
            return None
        with self.policy.precision():
            return prefix_states(self.policy.model, group.prefix_ids)

    def _margins(
        self, group: EncodedGroup, rows: Sequence[int], prefix: PrefixStates | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Margins of some rows, and their part of the format cost (a scalar)."""
        own = [group.own_ids[r] if prefix is not None else [*group.prefix_ids, *group.own_ids[r]] for r in rows]
        with self.policy.precision():
            hidden = last_hidden_states(self.policy.model, own, prefix)
        return self._read(hidden.float(), group)

    def _read(self, hidden: torch.Tensor, group: EncodedGroup) -> tuple[torch.Tensor, torch.Tensor]:
        """Margins and their part of the format cost from the last tokens' states ``(n, hidden)``."""
        model, labels = self.policy.model, list(self.policy.label_ids)
        weight, bias = label_rows(model, labels)
        logits = self._capped(hidden @ weight.T + bias)
        cost = logits.new_zeros(())
        if self.config.format_cost:
            head = model.get_output_embeddings()
            every = self._capped(
                F.linear(hidden, head.weight.float(), None if head.bias is None else head.bias.float())
            )
            unlikely = every.logsumexp(-1) - logits.logsumexp(-1)
            cost = self.config.format_cost * unlikely.sum() / len(group.own_ids)
        return logits[:, 1] - logits[:, 0], cost

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        softcap = getattr(self.policy.model.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits / softcap) * softcap if softcap else logits

    def _parts(self, group: EncodedGroup) -> list[list[int]]:
        """Rows sorted by length, cut so that no part has more than ``forward_tokens`` tokens, padding included."""
        extra = 0 if self.config.share_prefix else len(group.prefix_ids)
        parts: list[list[int]] = []
        for row in sorted(range(len(group.own_ids)), key=lambda r: -len(group.own_ids[r])):
            width = extra + len(group.own_ids[parts[-1][0] if parts else row])
            if not parts or (len(parts[-1]) + 1) * width > self.config.forward_tokens:
                parts.append([])
            parts[-1].append(row)
        return parts if len(parts) > 1 else [list(range(len(group.own_ids)))]

    def _loss(self, margins: torch.Tensor, item: RankingList) -> ListLoss:
        def row(values: Sequence[float] | None) -> torch.Tensor | None:
            return None if values is None else torch.tensor([values], dtype=torch.float32, device=margins.device)

        return combined(
            self.weights,
            margins[None],
            torch.ones(1, len(margins), dtype=torch.bool, device=margins.device),
            relevance=row(item.relevance),
            teacher=row(item.teacher),
            temperature=self.config.temperature,
            teacher_temperature=self.config.teacher_temperature,
        )

    def _statistics(
        self, item: RankingList, group: EncodedGroup, margins: torch.Tensor, loss: ListLoss
    ) -> ListStatistics:
        relevance = None if item.relevance is None else [0.0 if math.isnan(r) else r for r in item.relevance]
        targets = relevance if relevance is not None else item.teacher
        best, gap = float("nan"), float("nan")
        if targets is not None:
            best = float(targets[int(margins.argmax())] == max(targets))
        if relevance is not None:
            relevant = torch.tensor(relevance, device=margins.device) > 0
            if bool(relevant.any()) and not bool(relevant.all()):
                gap = float(margins[relevant].mean() - margins[~relevant].mean())
        tokens = len(group.prefix_ids) + sum(map(len, group.own_ids))
        return ListStatistics(
            float(loss.total.detach()), best, gap, float(margins.mean()), len(margins), tokens, dict(loss.parts)
        )
