"""Rollouts: the packed forward pass, sampling from it, and what a prompt's neighbours may not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from prorank.training.policy import Policy, check_packing, pack
from prorank.training.setup import training_encoder
from prorank.training.warmup.prompts import PromptSampler
from prorank.training.warmup.rollout import OTHER, completion_logprobs, enumerate_outputs, sample
from testkit.warmup import collection, config, load_tiny, make_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("rollout") / "tiny")


@pytest.fixture(scope="module")
def parts(folder: Path) -> tuple[Policy, list[Any]]:
    """A policy in float32 and two queries' groups of unequal length."""
    base, encoder = load_tiny(folder)
    settings = config()
    sampler = PromptSampler(collection(), settings)
    encode = training_encoder(encoder, base.model, settings)
    policy = Policy(base.model.eval(), encoder.label_ids, encoder.end_id)
    return policy, [encode(sampler.draw(i, hard=False)) for i in (0, 3)]


def plain_logprobs(policy: Policy, ids: list[int]) -> torch.Tensor:
    return F.log_softmax(policy.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float(), -1)


def test_packed_logits_are_the_models_own(parts):
    policy, groups = parts
    zero, one = policy.label_ids
    first, branch = policy.logits(pack(groups, [[(zero,), (one,), (zero, policy.end_id)]] * 6))
    prompts = [[*g.prefix_ids, *own] for g in groups for own in g.own_ids]
    for i, ids in enumerate(prompts):
        torch.testing.assert_close(F.log_softmax(first[i], -1), plain_logprobs(policy, ids), rtol=0, atol=2e-5)
        for j, more in enumerate(([zero], [one], [zero, policy.end_id])):
            expected = plain_logprobs(policy, ids + more)
            torch.testing.assert_close(F.log_softmax(branch[3 * i + j], -1), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("max_tokens", [1, 2, 4])
def test_logprobs_of_samples_are_the_models_own(parts, max_tokens):
    """Also of completions that leave the answers and continue on the cache; counts add up to G."""
    policy, groups = parts
    found = sample(policy, groups, group_size=5, seeds=[f"s{i}" for i in range(6)], max_tokens=max_tokens)
    prompts = [[*g.prefix_ids, *own] for g in groups for own in g.own_ids]
    for i, completion in enumerate(found.completions):
        assert len(completion) == max_tokens or completion[-1] == policy.end_id
        assert policy.end_id not in completion[:-1]
        ids = list(prompts[int(found.prompt[i])])
        for t, token in enumerate(completion):
            assert found.logprobs[i, t].item() == pytest.approx(plain_logprobs(policy, ids)[token].item(), abs=5e-5)
            ids.append(token)
        assert found.mask[i].sum() == len(completion)
    for prompt in range(6):
        assert found.counts[found.prompt == prompt].sum() == 5
        own = [c for c, p in zip(found.completions, found.prompt.tolist(), strict=True) if p == prompt]
        assert len(own) == len(set(own))
    again = completion_logprobs(policy, groups, found)
    torch.testing.assert_close(again * found.mask, found.logprobs * found.mask, rtol=0, atol=5e-5)


def test_a_prompt_samples_alike_whatever_its_neighbours(parts):
    policy, groups = parts
    seeds = [f"s{i}" for i in range(6)]
    together = sample(policy, groups, group_size=8, seeds=seeds)
    alone = sample(policy, groups[1:], group_size=8, seeds=seeds[3:])
    one = [(c, n) for c, p, n in zip(together.completions, together.prompt, together.counts, strict=True) if p >= 3]
    assert one == list(zip(alone.completions, alone.counts, strict=True))


def test_samples_follow_the_policy_with_prior_and_temperature(parts):
    """Frequencies of 4,000 samples against the probabilities they were meant to have: no padding bias."""
    policy, groups = parts
    size, prior = 4000, 3.0
    found = sample(
        policy, groups, group_size=size, seeds=[f"s{i}" for i in range(6)], temperature=1.5, max_tokens=1,
        priors=lambda margins: torch.full_like(margins, prior),
    )  # fmt: skip
    zero, one = policy.label_ids
    for prompt in (0, 5):
        logits = found.first_logits[prompt].detach().clone()
        logits[zero] += prior / 2
        logits[one] -= prior / 2
        expected = F.softmax(logits / 1.5, -1)
        seen = torch.zeros_like(expected)
        for c, p, n in zip(found.completions, found.prompt.tolist(), found.counts, strict=True):
            if p == prompt:
                seen[c[0]] = n / size
        assert (seen - expected).abs().max() < 0.03
        assert (seen - expected).abs().sum() / 2 < 0.08


def test_top_p_cuts_the_tail(parts):
    policy, groups = parts
    found = sample(policy, groups[:1], group_size=500, seeds=["a", "b", "c"], top_p=0.3, max_tokens=1)
    for prompt in range(3):
        probabilities = F.softmax(found.first_logits[prompt], -1).sort(descending=True)
        kept = int((probabilities.values.cumsum(0) < 0.3).sum()) + 1
        allowed = set(probabilities.indices[:kept].tolist())
        drawn = {c[0] for c, p in zip(found.completions, found.prompt.tolist(), strict=True) if p == prompt}
        assert drawn <= allowed


def test_enumerated_outcomes_are_all_there_is(parts):
    policy, groups = parts
    found = enumerate_outputs(policy, groups, group_size=10)
    probability = (found.logprobs * found.mask).sum(1).exp().view(6, 5)
    torch.testing.assert_close(probability.sum(1), torch.ones(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.counts.view(6, 5).sum(1), torch.full((6,), 10.0))
    assert found.completions[4] == (OTHER,)


def test_sampled_gradient_tends_to_the_exact_one(parts):
    """The policy gradient of the relevance reward: many samples against the whole output set."""
    from prorank.training.warmup.grpo import group_advantages, policy_loss

    policy, groups = parts
    parameter = policy.model.get_input_embeddings().weight

    def gradient(rollout, unbiased):
        reward = torch.tensor([[float(c[0] == policy.label_ids[1])] for c in rollout.completions])
        advantage = group_advantages(reward, rollout.counts, rollout.prompt, 6, scale=False, unbiased=unbiased)
        loss = policy_loss(
            rollout.logprobs, rollout.logprobs, advantage.values, rollout.mask, rollout.counts, loss_type="dapo"
        )
        return torch.autograd.grad(loss.total / rollout.counts.sum(), parameter)[0]

    exact = gradient(enumerate_outputs(policy, groups, group_size=64), unbiased=False)
    sampled = gradient(
        sample(policy, groups, group_size=20_000, seeds=[f"s{i}" for i in range(6)], max_tokens=1), unbiased=True
    )
    cosine = F.cosine_similarity(exact.flatten(), sampled.flatten(), dim=0)
    assert cosine > 0.9


def test_packing_check_refuses_an_architecture_that_looks_ahead(parts):
    policy, groups = parts
    check_packing(policy, groups[0])

    class Careless(Policy):
        def logits(self, packed, cache=None):
            return super().logits(packed._replace(visible=torch.ones_like(packed.visible)), cache)

    with pytest.raises(ValueError, match="tree-shaped"):
        check_packing(Careless(policy.model, policy.label_ids, policy.end_id), groups[0])
