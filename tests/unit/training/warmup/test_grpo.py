"""GRPO's formulas against numbers derived by hand, and counts against repeated rows."""

from __future__ import annotations

import math

import pytest
import torch

from prorank.training.warmup.grpo import (
    clipped_objective,
    group_advantages,
    k3_divergence,
    label_prior_offset,
    policy_loss,
)


def advantages(rewards, counts=None, prompt=None, **options):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    rewards = rewards[:, None] if rewards.ndim == 1 else rewards
    counts = torch.ones(len(rewards), dtype=torch.float64) if counts is None else torch.tensor(counts)
    prompt = torch.zeros(len(rewards), dtype=torch.long) if prompt is None else torch.tensor(prompt)
    return group_advantages(rewards, counts, prompt, int(prompt.max()) + 1, **options)


def test_advantages_by_hand():
    """Rewards 1, 0, 0, 1: mean 1/2, squares 4 * 1/4 = 1, sample variance 1/3, so A = (1/2) / (sqrt(1/3) + 1e-4)."""
    found = advantages([1.0, 0.0, 0.0, 1.0])
    a = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    torch.testing.assert_close(found.values, torch.tensor([a, -a, -a, a], dtype=torch.float64))
    assert found.mean.item() == 0.5
    assert found.std.item() == pytest.approx(math.sqrt(1 / 3))
    assert not found.zero_variance.item()


def test_advantages_without_division():
    """Dr. GRPO: A = r - mean(r)."""
    found = advantages([3.0, 1.0, 2.0], scale=False)
    torch.testing.assert_close(found.values, torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64))


def test_groups_do_not_see_each_other():
    found = advantages([1.0, 0.0, 9.0, 7.0], prompt=[0, 0, 1, 1], scale=False)
    torch.testing.assert_close(found.values, torch.tensor([0.5, -0.5, 1.0, -1.0], dtype=torch.float64))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_zero_variance_gives_exactly_zero(value):
    found = advantages([value] * 7)
    assert found.values.eq(0).all()
    assert found.zero_variance.item()


def test_single_answer_group_of_two_rewards():
    """All completions equal in one reward and not in the other: the first adds nothing, the second all."""
    found = advantages([[1.0, 0.0], [1.0, 1.0]])
    alone = advantages([0.0, 1.0])
    torch.testing.assert_close(found.values, alone.values)
    assert not found.zero_variance.item()


def test_apart_gives_a_rare_reward_its_say():
    """Summed first, a reward of scale 0.01 is drowned; apart, both rewards push with the same strength."""
    rewards = [[1.0, 0.00], [1.0, 0.01], [0.0, 0.00], [0.0, 0.01]]
    apart, together = advantages(rewards).values, advantages(rewards, normalise="sum").values
    assert (apart[1] - apart[0]).item() == pytest.approx((apart[0] - apart[2]).item(), rel=0.03)
    assert (together[1] - together[0]).item() < 0.02


def test_weight_zero_is_not_counted_as_variance():
    found = advantages([[1.0, 0.0], [1.0, 1.0]], weights=torch.tensor([1.0, 0.0]))
    assert found.zero_variance.item()
    assert found.values.eq(0).all()


@pytest.mark.parametrize("normalise", ["apart", "sum"])
@pytest.mark.parametrize("scale", [True, False])
def test_counts_equal_repeated_rows(normalise, scale):
    rewards, counts = [[1.0, 0.5], [0.0, 1.0], [0.0, 0.0]], [3, 1, 4]
    weighted = advantages(rewards, [float(c) for c in counts], normalise=normalise, scale=scale)
    repeated = advantages(
        [row for row, c in zip(rewards, counts, strict=True) for _ in range(c)], normalise=normalise, scale=scale
    )
    expanded = weighted.values.repeat_interleave(torch.tensor(counts))
    torch.testing.assert_close(expanded, repeated.values)
    torch.testing.assert_close(weighted.std, repeated.std)


def test_clip_by_hand():
    """Ratios 1.5 and 0.5 at clip 0.2. A > 0: min(1.5, 1.2) A and 0.5 A. A < 0: 1.5 A stays, max(|0.5|, |0.8|)."""
    old = torch.zeros(4, 1)
    now = torch.tensor([[1.5], [0.5], [1.5], [0.5]]).log()
    loss, clipped = clipped_objective(now, old, torch.tensor([2.0, 2.0, -2.0, -2.0]))
    torch.testing.assert_close(loss[:, 0], torch.tensor([-2.4, -1.0, 3.0, 1.6]))
    assert clipped[:, 0].tolist() == [True, False, False, True]


def test_clip_higher():
    """DAPO: the upper end alone is raised."""
    now = torch.tensor([[1.25]]).log()
    loss, _ = clipped_objective(now, torch.zeros(1, 1), torch.ones(1), 0.2, 0.28)
    assert loss.item() == pytest.approx(-1.25)


def test_k3_by_hand():
    """pi = 1/2, ref = 1/4: d = log(1/2), k3 = 1/2 + log 2 - 1."""
    found = k3_divergence(torch.tensor([0.5]).log(), torch.tensor([0.25]).log())
    assert found.item() == pytest.approx(0.5 + math.log(2) - 1, rel=1e-6)
    assert k3_divergence(torch.tensor([-1.0]), torch.tensor([-1.0])).item() == 0


def test_k3_is_unbiased_and_not_negative():
    torch.manual_seed(0)
    p, q = torch.randn(50).log_softmax(0), torch.randn(50).log_softmax(0)
    values = k3_divergence(p, q)
    assert (values >= 0).all()
    assert (p.exp() * values).sum().item() == pytest.approx((p.exp() * (p - q)).sum().item(), abs=1e-6)


LOGPROBS = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]], dtype=torch.float64)
MASK = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
ADVANTAGES = torch.tensor([1.0, -1.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        ("grpo", (1 * -(1 + 1) / 2 + 2 * 1) / 3),  # mean a completion, then over 3 completions
        ("dapo", (-2 + 2 * 1) / (2 + 2)),  # all tokens alike: 2 + 2 * 1
        ("dr_grpo", (-2 + 2 * 1) / (3 * 4)),  # a constant length of 4
    ],
)
def test_three_averages_by_hand(loss_type, expected):
    """On-policy (ratio 1): each token's loss is -A. Completion 0 has two tokens, completion 1 one, sampled twice."""
    loss = policy_loss(
        LOGPROBS, LOGPROBS, ADVANTAGES, MASK, torch.tensor([1.0, 2.0], dtype=torch.float64), loss_type=loss_type,
        max_completion_tokens=4,
    )  # fmt: skip
    assert loss.mean.item() == pytest.approx(expected)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_loss_and_gradient_of_counts_equal_repeated_rows(loss_type):
    torch.manual_seed(1)
    counts = torch.tensor([3, 1, 2])
    now = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    old, reference = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    advantage, mask = torch.randn(3, dtype=torch.float64), torch.tensor([[1.0, 1], [1, 0], [1, 1]]).double()
    options = {"beta": 0.3, "loss_type": loss_type}
    weighted = policy_loss(now, old, advantage, mask, counts.double(), reference=reference, **options).mean
    (gradient,) = torch.autograd.grad(weighted, now)
    again = now.detach().clone().requires_grad_()

    def rows(x):
        return x.repeat_interleave(counts, 0)

    repeated = policy_loss(
        rows(again), rows(old), rows(advantage), rows(mask), torch.ones(6).double(), reference=rows(reference),
        **options,
    ).mean  # fmt: skip
    torch.testing.assert_close(weighted, repeated)
    torch.testing.assert_close(gradient, torch.autograd.grad(repeated, again)[0])


def test_on_policy_gradient_is_the_policy_gradient():
    """At ratio 1 the gradient of -r A is -A grad log pi: not zero, though the loss value knows nothing of it."""
    now = LOGPROBS.clone().requires_grad_()
    policy_loss(now, now, ADVANTAGES, MASK, torch.ones(2, dtype=torch.float64), loss_type="dapo").total.backward()
    torch.testing.assert_close(now.grad, -ADVANTAGES[:, None] * MASK)


def test_padding_never_counts():
    padded = LOGPROBS.clone()
    padded[1, 1] = float("nan")
    loss = policy_loss(padded, LOGPROBS, ADVANTAGES, MASK, torch.ones(2).double())
    assert math.isfinite(loss.total.item())


def test_parts_of_a_batch_add_up():
    torch.manual_seed(2)
    now, old = torch.randn(6, 2), torch.randn(6, 2)
    advantage, counts, mask = torch.randn(6), torch.rand(6), torch.ones(6, 2)
    whole = policy_loss(now, old, advantage, mask, counts)
    halves = [policy_loss(now[s], old[s], advantage[s], mask[s], counts[s]) for s in (slice(0, 2), slice(2, 6))]
    total, normaliser = sum(h.total for h in halves), sum(h.normaliser for h in halves)
    torch.testing.assert_close(total / normaliser, whole.mean)


def test_beta_needs_a_reference():
    with pytest.raises(ValueError, match="reference"):
        policy_loss(LOGPROBS, LOGPROBS, ADVANTAGES, MASK, torch.ones(2), beta=0.1)


def test_unknown_loss_type():
    with pytest.raises(ValueError, match="loss_type"):
        policy_loss(LOGPROBS, LOGPROBS, ADVANTAGES, MASK, torch.ones(2), loss_type="ppo")  # type: ignore[arg-type]


def test_prior_offset_takes_the_margin_away():
    logits = torch.tensor([0.0, 2.0, 5.0, 1.0])
    shifted = logits + label_prior_offset(4, (1, 2), 3.0)
    assert (shifted[2] - shifted[1]).item() == 0
    assert shifted[0] == logits[0]
    assert shifted[3] == logits[3]
