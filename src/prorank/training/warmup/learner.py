"""What one forward pass of warmup learns: rollout -> reward -> advantage -> a loss in two additive parts.

Everything is a sum over queries, so that accumulation, processes and refills add up to the very same step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from prorank.training.policy import Policy
from prorank.training.warmup.config import WarmupConfig
from prorank.training.warmup.grpo import Loss, group_advantages, policy_loss
from prorank.training.warmup.prompts import QueryPrompts
from prorank.training.warmup.rewards import Completion, Reward
from prorank.training.warmup.rollout import Rollout, completion_logprobs, enumerate_outputs, sample
from prorank.types import EncodedGroup

__all__ = ["Advantage", "Batch", "Kept", "Learner", "entropy", "margins_of", "query_means"]


class Batch(NamedTuple):
    """The prompts of one forward pass: n prompts of whole queries."""

    groups: Sequence[EncodedGroup]
    labels: torch.Tensor
    """``(n,)`` int64: 1 relevant, 0 not."""
    query: torch.Tensor
    """``(n,)`` int64: whose prompt it is."""
    weights: torch.Tensor
    """``(n,)``: in every query both labels weigh the same, and the mean weight is 1."""


class Advantage(NamedTuple):
    """What a rollout's m completions are worth."""

    values: torch.Tensor
    """``(m,)`` advantages."""
    counts: torch.Tensor
    """``(m,)`` weights in the loss: how often sampled, times the prompt's weight; 0 where the query teaches nothing."""
    zero_variance: torch.Tensor
    """``(n,)`` bool: prompts all of whose completions earned the same."""
    live: torch.Tensor
    """``(queries,)`` bool: queries that teach something."""


class Kept(NamedTuple):
    """A rollout kept for further updates."""

    groups: Sequence[EncodedGroup]
    rollout: Rollout
    advantage: Advantage
    reference: torch.Tensor | None


class Learner:
    """Rolls out, rewards and computes the loss under a configuration.

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

    def batch(self, prompts: Sequence[QueryPrompts], groups: Sequence[EncodedGroup]) -> Batch:
        """Queries, as drawn and as token ids, side by side."""
        labels = torch.as_tensor([label for p in prompts for label in p.labels], device=self.policy.device)
        query = torch.as_tensor([i for i, p in enumerate(prompts) for _ in p.labels], device=self.policy.device)
        weights = _balanced(labels, query) if self.config.balance else torch.ones_like(labels, dtype=torch.float32)
        return Batch(groups, labels, query, weights)

    def rollout(self, batch: Batch, seeds: Sequence[str], prior: float | None, strength: float) -> Rollout:
        """G completions of every prompt (or the whole output set, weighted).

        Args:
            seeds: one a prompt.
            prior: the running mean margin; None: each query's own.
            strength: how much of it is taken out before sampling, 1 to 0.
        """
        config = self.config

        def priors(margins: torch.Tensor) -> torch.Tensor:
            if config.prior == "none" or strength == 0:
                return torch.zeros_like(margins)
            if config.prior == "running" and prior is not None:
                return torch.full_like(margins, strength * prior)
            return strength * query_means(margins, batch.weights, batch.query)[batch.query]

        if config.objective == "grpo":
            return sample(
                self.policy, batch.groups, group_size=config.group_size, seeds=seeds,
                max_tokens=config.max_completion_tokens, temperature=config.temperature, top_p=config.top_p,
                priors=priors,
            )  # fmt: skip
        return enumerate_outputs(
            self.policy, batch.groups, group_size=config.group_size, temperature=config.temperature, priors=priors
        )

    def reward(self, batch: Batch, rollout: Rollout) -> torch.Tensor:
        """``(m, k)`` rewards of m completions by k functions; equal completions of equal labels are rewarded once."""
        known: dict[tuple[tuple[int, ...], float], list[float]] = {}
        rows = []
        for prompt, ids in zip(rollout.prompt.tolist(), rollout.completions, strict=True):
            label = float(batch.labels[prompt])
            if (ids, label) not in known:
                completion = Completion(ids, self.policy.label_ids, self.policy.end_id, self.decode)
                known[ids, label] = [float(reward.function(completion, label)) for reward in self.rewards]
            rows.append(known[ids, label])
        return torch.as_tensor(rows, dtype=torch.float32, device=rollout.counts.device)

    def advantage(self, batch: Batch, rollout: Rollout, rewards: torch.Tensor) -> Advantage:
        """Rewards against the mean of their prompt's group; a query without any variance teaches nothing."""
        config = self.config
        found = group_advantages(
            rewards,
            rollout.counts,
            rollout.prompt,
            len(batch.labels),
            weights=torch.as_tensor([r.weight for r in self.rewards]),
            normalise=config.normalise,
            scale=config.scale_rewards and config.loss_type != "dr_grpo",
            unbiased=config.objective == "grpo",
        )
        live = torch.zeros(len(batch.groups), dtype=torch.bool, device=batch.query.device)
        live[batch.query[~found.zero_variance]] = True
        if config.objective == "supervised":
            live[:] = True
        counts = rollout.counts * batch.weights[rollout.prompt] * live[batch.query[rollout.prompt]]
        return Advantage(found.values, counts, found.zero_variance, live)

    def reference(self, batch: Batch, rollout: Rollout) -> torch.Tensor | None:
        """``(m, t)`` log-probabilities of the completions under the reference policy; None without a KL penalty."""
        if not self.config.beta:
            return None
        with self.policy.reference() as reference:
            if self.config.objective == "grpo":
                return completion_logprobs(reference, batch.groups, rollout, temperature=self.config.temperature)
            return enumerate_outputs(
                reference, batch.groups, group_size=1, temperature=self.config.temperature,
                priors=lambda _: rollout.priors,
            ).logprobs  # fmt: skip

    def loss(self, batch: Batch, rollout: Rollout, advantage: Advantage, reference: torch.Tensor | None) -> Loss:
        """The policy loss, what a query's mean margin costs and what entropy earns; sums over queries."""
        config, weights, query, live = self.config, batch.weights, batch.query, advantage.live
        if config.objective == "supervised":
            loss = self._supervised(batch, rollout, advantage)
        else:
            loss = self._policy_loss(rollout.logprobs, Kept(batch.groups, _detached(rollout), advantage, reference))
        total = loss.total
        if config.margin_cost and config.objective != "supervised":
            mean = query_means(margins_of(self.policy, rollout), weights, query)[live]
            total = total + loss.normaliser * config.margin_cost * 0.5 * (mean**2).mean()
        if config.entropy_bonus:
            mean = query_means(entropy(rollout.first_logits), weights, query)[live]
            total = total - loss.normaliser * config.entropy_bonus * mean.mean()
        return loss._replace(total=total)

    def keep(self, batch: Batch, rollout: Rollout, advantage: Advantage, reference: torch.Tensor | None) -> Kept:
        """What :meth:`again` needs."""
        return Kept(batch.groups, _detached(rollout), advantage, reference)

    def again(self, kept: Kept) -> Loss:
        """A further, off-policy update on completions sampled before: the policy loss alone."""
        now = completion_logprobs(self.policy, kept.groups, kept.rollout, temperature=self.config.temperature)
        return self._policy_loss(now, kept)

    def _policy_loss(self, logprobs: torch.Tensor, kept: Kept) -> Loss:
        config = self.config
        return policy_loss(
            logprobs, kept.rollout.logprobs, kept.advantage.values, kept.rollout.mask, kept.advantage.counts,
            reference=kept.reference, beta=config.beta, loss_type=config.loss_type, clip_low=config.clip_low,
            clip_high=config.clip_high, max_completion_tokens=config.max_completion_tokens,
        )  # fmt: skip

    def _supervised(self, batch: Batch, rollout: Rollout, advantage: Advantage) -> Loss:
        """Cross-entropy of the right answer and of ending the turn after it."""
        labels = batch.labels
        answers = torch.as_tensor(self.policy.label_ids, device=labels.device)[labels]
        right = F.log_softmax(rollout.first_logits, -1)[range(len(labels)), answers]
        ended = rollout.end_logprobs[range(len(labels)), labels]
        per_query = -query_means(right + ended, batch.weights, batch.query)
        normaliser = advantage.counts.sum()
        return Loss(normaliser * per_query.mean(), normaliser, {})


def margins_of(policy: Policy, rollout: Rollout) -> torch.Tensor:
    """``(n,)`` margins of the plain policy, with gradient."""
    return rollout.first_logits[:, policy.label_ids[1]] - rollout.first_logits[:, policy.label_ids[0]]


def query_means(values: torch.Tensor, weights: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """``(n,)`` -> ``(queries,)`` weighted mean over a query's prompts."""
    total = values.new_zeros(int(query.max()) + 1)
    return total.index_add(0, query, values * weights) / total.detach().index_add(0, query, weights.to(values))


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """``(n, V)`` -> ``(n,)``, in nats."""
    logprobs = F.log_softmax(logits, -1)
    return -(logprobs.exp() * logprobs).sum(-1)


def _balanced(labels: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    count = torch.zeros(int(query.max()) + 1, 2, device=labels.device)
    count.index_put_((query, labels), torch.ones_like(labels, dtype=torch.float32), accumulate=True)
    present = (count > 0).sum(1)
    return count.sum(1)[query] / (present[query] * count[query, labels])


def _detached(rollout: Rollout) -> Rollout:
    return rollout._replace(
        logprobs=rollout.logprobs.detach(), first_logits=rollout.first_logits.detach(),
        end_logprobs=rollout.end_logprobs.detach(),
    )  # fmt: skip
