"""What one forward pass of warmup learns: rollouts -> rewards -> advantages -> a loss in additive parts, and counts.

Everything is a sum over queries, so that accumulation, processes and refills add up to the very same step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from prorank.training.policy import Policy, pack
from prorank.training.warmup.config import WarmupConfig
from prorank.training.warmup.grpo import group_advantages, policy_loss
from prorank.training.warmup.prompts import QueryPrompts
from prorank.training.warmup.rewards import Completion, Reward
from prorank.training.warmup.rollout import Rollout, completion_logprobs, enumerate_outputs, sample
from prorank.types import EncodedGroup

__all__ = ["STATISTICS", "Learned", "Learner", "Stored"]

STATISTICS = (
    "queries", "informative", "prompts", "zero_variance", "reward_format", "reward_relevance", "format_success",
    "accuracy", "entropy", "answers_one", "greedy_correct", "margin", "margin_gap", "kl", "clipped", "tokens",
)  # fmt: skip
"""What is counted in a step; sums, to be divided by ``queries``, ``prompts`` or ``tokens``."""


class Stored(NamedTuple):
    """A rollout kept for further updates."""

    groups: Sequence[EncodedGroup]
    rollout: Rollout
    old_logprobs: torch.Tensor
    advantages: torch.Tensor
    counts: torch.Tensor
    reference: torch.Tensor | None


class Learned(NamedTuple):
    """Sums over the queries of one forward pass."""

    total: torch.Tensor | None
    """Scalar with gradient; None where no query had anything to teach."""
    normaliser: float
    statistics: torch.Tensor
    """``(len(STATISTICS),)`` float64."""
    stored: Stored | None


class Learner:
    """Computes the loss of prompts under a configuration.

    Args:
        decode: token ids -> text, for rewards that read text.
    """

    def __init__(
        self,
        policy: Policy,
        config: WarmupConfig,
        rewards: Sequence[Reward],
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        self.policy, self.config, self.rewards, self.decode = policy, config, rewards, decode

    def learn(
        self,
        prompts: Sequence[QueryPrompts],
        groups: Sequence[EncodedGroup],
        seeds: Sequence[str],
        prior: float | None,
        strength: float,
    ) -> Learned:
        """One forward pass over whole queries.

        Args:
            seeds: one a prompt.
            prior: the running mean margin; None: each query's own.
            strength: how much of it is taken out, 1 to 0.
        """
        config = self.config
        labels = torch.as_tensor([label for p in prompts for label in p.labels], device=self.policy.device)
        query = torch.as_tensor([i for i, p in enumerate(prompts) for _ in p.labels], device=self.policy.device)
        weights = _balanced(labels, query) if config.balance else torch.ones_like(labels, dtype=torch.float32)

        def priors(margins: torch.Tensor) -> torch.Tensor:
            if config.prior == "none" or strength == 0:
                return torch.zeros_like(margins)
            if config.prior == "running" and prior is not None:
                return torch.full_like(margins, strength * prior)
            return strength * _query_means(margins, weights, query)[query]

        if config.objective == "grpo":
            rollout = sample(
                self.policy, groups, group_size=config.group_size, seeds=seeds, max_tokens=config.max_completion_tokens,
                temperature=config.temperature, top_p=config.top_p, priors=priors,
            )  # fmt: skip
        else:
            rollout = enumerate_outputs(
                self.policy, groups, group_size=config.group_size, temperature=config.temperature, priors=priors
            )
        scored = self._scored(rollout, labels)
        advantages = group_advantages(
            scored,
            rollout.counts,
            rollout.prompt,
            len(labels),
            weights=torch.as_tensor([r.weight for r in self.rewards]),
            normalise=config.normalise,
            scale=config.scale_rewards and config.loss_type != "dr_grpo",
            unbiased=config.objective == "grpo",
        )
        live = torch.zeros(len(prompts), dtype=torch.bool, device=query.device)
        live[query[~advantages.zero_variance]] = True
        if config.objective == "supervised":
            live[:] = True
        counts = rollout.counts * weights[rollout.prompt] * live[query[rollout.prompt]]
        margins = rollout.first_logits[:, self.policy.label_ids[1]] - rollout.first_logits[:, self.policy.label_ids[0]]
        statistics = self._statistics(rollout, scored, advantages.zero_variance, live, labels, weights, query, margins)
        if not live.any():
            return Learned(None, 0.0, statistics, None)
        reference = self._reference(groups, rollout) if config.beta else None
        normaliser, total = counts.sum(), torch.zeros((), device=query.device)
        if config.objective == "supervised":
            right = F.log_softmax(rollout.first_logits, -1)[range(len(labels)), _answers(labels, self.policy)]
            ended = rollout.end_logprobs[range(len(labels)), labels]
            per_query = -_query_means(right + ended, weights, query)
            total = total + normaliser * per_query.mean()
        else:
            loss = self._policy_loss(
                rollout.logprobs, rollout.logprobs.detach(), advantages.values, rollout, counts, reference
            )
            total, normaliser = loss.total, loss.normaliser
            for i, name in enumerate(STATISTICS):
                if name in loss.diagnostics:
                    statistics[i] += loss.diagnostics[name].double().cpu()
        if config.margin_cost and config.objective != "supervised":
            mean = _query_means(margins, weights, query)[live]
            total = total + normaliser * config.margin_cost * 0.5 * (mean**2).mean()
        if config.entropy_bonus:
            total = (
                total
                - normaliser
                * config.entropy_bonus
                * _query_means(_entropy(rollout.first_logits), weights, query)[live].mean()
            )
        stored = None
        if config.updates_per_rollout > 1:
            detached = rollout._replace(
                logprobs=rollout.logprobs.detach(), first_logits=rollout.first_logits.detach(),
                end_logprobs=rollout.end_logprobs.detach(),
            )  # fmt: skip
            stored = Stored(groups, detached, detached.logprobs, advantages.values, counts, reference)
        return Learned(total, float(normaliser), statistics, stored)

    def again(self, stored: Stored) -> Learned:
        """A further, off-policy update on completions sampled before: the policy loss alone."""
        logprobs = completion_logprobs(self.policy, stored.groups, stored.rollout, temperature=self.config.temperature)
        loss = self._policy_loss(
            logprobs, stored.old_logprobs, stored.advantages, stored.rollout, stored.counts, stored.reference
        )
        statistics = torch.zeros(len(STATISTICS), dtype=torch.float64)
        for i, name in enumerate(STATISTICS):
            if name in loss.diagnostics:
                statistics[i] += loss.diagnostics[name].double().cpu()
        return Learned(loss.total, float(loss.normaliser), statistics, None)

    def _policy_loss(self, logprobs, old, advantages, rollout, counts, reference):
        return policy_loss(
            logprobs, old, advantages, rollout.mask, counts, reference=reference, beta=self.config.beta,
            loss_type=self.config.loss_type, clip_low=self.config.clip_low, clip_high=self.config.clip_high,
            max_completion_tokens=self.config.max_completion_tokens,
        )  # fmt: skip

    def _reference(self, groups: Sequence[EncodedGroup], rollout: Rollout) -> torch.Tensor:
        if self.config.objective != "grpo":
            return self._reference_outcomes(groups, rollout)
        with self.policy.reference() as reference:
            return completion_logprobs(reference, groups, rollout, temperature=self.config.temperature)

    def _reference_outcomes(self, groups: Sequence[EncodedGroup], rollout: Rollout) -> torch.Tensor:
        with self.policy.reference() as reference:
            other = enumerate_outputs(
                reference, groups, group_size=1, temperature=self.config.temperature, priors=lambda _: rollout.priors
            )
        return other.logprobs

    def _scored(self, rollout: Rollout, labels: torch.Tensor) -> torch.Tensor:
        """``(m, k)`` rewards; equal completions of equal labels are rewarded once."""
        known: dict[tuple[tuple[int, ...], float], list[float]] = {}
        rows = []
        for prompt, ids in zip(rollout.prompt.tolist(), rollout.completions, strict=True):
            label = float(labels[prompt])
            if (ids, label) not in known:
                completion = Completion(ids, self.policy.label_ids, self.policy.end_id, self.decode)
                known[ids, label] = [float(reward.function(completion, label)) for reward in self.rewards]
            rows.append(known[ids, label])
        return torch.as_tensor(rows, dtype=torch.float32, device=rollout.counts.device)

    def _statistics(self, rollout, scored, zero, live, labels, weights, query, margins) -> torch.Tensor:
        with torch.no_grad():
            share = rollout.counts / self.config.group_size
            names = [reward.name for reward in self.rewards]
            label_ids = torch.as_tensor(self.policy.label_ids, device=labels.device)
            greedy = rollout.first_logits.argmax(-1)
            well_formed = [
                len(c) > 1 and c[0] in self.policy.label_ids and c[1] == self.policy.end_id for c in rollout.completions
            ]
            formed = torch.as_tensor(well_formed, device=share.device, dtype=torch.float32)
            answer = torch.as_tensor(
                [float(c[0] == self.policy.label_ids[1]) for c in rollout.completions], device=share.device
            )
            right = formed * (answer == labels[rollout.prompt])
            centre = _query_means(margins, weights, query)
            gap = _query_means(margins * (2.0 * labels - 1), weights, query) * 2
            values = {
                "queries": float(len(live)), "informative": live.sum(), "prompts": float(len(labels)),
                "zero_variance": zero.sum(), "format_success": (share * formed).sum(),
                "accuracy": (share * right).sum(),
                "entropy": _entropy(rollout.first_logits).sum(), "answers_one": (greedy == label_ids[1]).sum(),
                "greedy_correct": (greedy == label_ids[labels]).float().mul(weights).sum(),
                "margin": centre.sum(), "margin_gap": gap.sum(),
            }  # fmt: skip
            for i, name in enumerate(names):
                if f"reward_{name}" in STATISTICS:
                    values[f"reward_{name}"] = (share * scored[:, i]).sum()
            return torch.as_tensor([float(values.get(name, 0.0)) for name in STATISTICS], dtype=torch.float64)


@torch.no_grad()
def greedy_answers(policy: Policy, group: EncodedGroup) -> tuple[list[float], list[int | None]]:
    """Margins and greedy answers (0, 1, None for a malformed one) of one query's documents."""
    labels = policy.label_ids
    n = len(group.own_ids)
    first, branch = policy.logits(pack([group], [[(labels[0],), (labels[1],)]] * n))
    ends = (branch.argmax(-1) == policy.end_id).view(n, 2)
    answers: list[int | None] = []
    for row, token in enumerate(first.argmax(-1).tolist()):
        answer = labels.index(token) if token in labels else None
        answers.append(answer if answer is not None and bool(ends[row, answer]) else None)
    return (first[:, labels[1]] - first[:, labels[0]]).tolist(), answers


def _balanced(labels: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """``(n,)`` weights: in every query both labels weigh the same, and the mean weight is 1."""
    count = torch.zeros(int(query.max()) + 1, 2, device=labels.device)
    count.index_put_((query, labels), torch.ones_like(labels, dtype=torch.float32), accumulate=True)
    present = (count > 0).sum(1)
    return count.sum(1)[query] / (present[query] * count[query, labels])


def _query_means(values: torch.Tensor, weights: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """``(n,)`` -> ``(queries,)`` weighted mean over a query's prompts."""
    total = values.new_zeros(int(query.max()) + 1)
    return total.index_add(0, query, values * weights) / total.detach().index_add(0, query, weights.to(values))


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    logprobs = F.log_softmax(logits, -1)
    return -(logprobs.exp() * logprobs).sum(-1)


def _answers(labels: torch.Tensor, policy: Policy) -> torch.Tensor:
    return torch.as_tensor(policy.label_ids, device=labels.device)[labels]
