"""Our loss, gradients and advantages against TRL's GRPOTrainer: same tiny model, prompts, completions, rewards."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from prorank.training.policy import Policy
from prorank.training.setup import training_encoder
from prorank.training.warmup.grpo import group_advantages, policy_loss
from prorank.training.warmup.prompts import PromptSampler
from prorank.training.warmup.rollout import Rollout, completion_logprobs
from testkit.warmup import collection, config, load_tiny, make_base

pytest.importorskip("trl")

GROUP, PROMPTS, WIDTH = 6, 3, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("trl") / "tiny")


@pytest.fixture(scope="module")
def case(folder: Path) -> dict[str, Any]:
    """Three prompts of one query; six completions each, with repeats, some of one token; rewards of two functions."""
    base, encoder = load_tiny(folder)
    settings = config()
    group = training_encoder(encoder, base.model, settings)(PromptSampler(collection(), settings).draw(0, hard=False))
    zero, one = encoder.label_ids
    end, x, y = encoder.end_id, 40, 41
    completions = [
        [(zero, end)] * 2 + [(one, end), (one, x), (x, y), (end,)],
        [(one, end)] * 4 + [(zero, end), (zero, y)],
        [(x, y), (x, end), (zero, end), (zero, end), (end,), (one, end)],
    ]
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(PROMPTS * GROUP, 2, generator=generator)
    for prompt in range(PROMPTS):  # equal completions earn the same
        seen: dict[tuple[int, ...], torch.Tensor] = {}
        for i, completion in enumerate(completions[prompt]):
            rewards[prompt * GROUP + i] = seen.setdefault(completion, rewards[prompt * GROUP + i])
    return {"base": base, "encoder": encoder, "group": group, "completions": completions, "rewards": rewards}


def trainer(tmp_path: Path, model: Any, tokenizer: Any, **options: Any) -> Any:
    """A GRPOTrainer that never trains: its loss function is all that is asked for."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP,
        max_completion_length=WIDTH, use_cpu=True, report_to=[], bf16=False, temperature=1.0,
        use_bias_correction_kl=False, **options,
    )  # fmt: skip
    return GRPOTrainer(
        model=model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=arguments,
        processing_class=tokenizer, train_dataset=Dataset.from_dict({"prompt": ["a"] * 24}),
    )  # fmt: skip


def distinct(case: dict[str, Any]) -> tuple[list[tuple[int, ...]], list[int], list[int], list[int]]:
    """Completions once each, their prompts, their counts, and for every sample the index of its completion."""
    ids, prompts, counts, where = [], [], [], []
    for prompt, sampled in enumerate(case["completions"]):
        first: dict[tuple[int, ...], int] = {}
        for completion in sampled:
            if completion not in first:
                first[completion] = len(ids)
                ids.append(completion)
                prompts.append(prompt)
                counts.append(0)
            counts[first[completion]] += 1
            where.append(first[completion])
    return ids, prompts, counts, where


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_loss_and_gradients_equal_trl(case, tmp_path, loss_type, beta):
    ours_model = copy.deepcopy(case["base"].model).train()
    theirs_model = copy.deepcopy(ours_model)
    torch.manual_seed(3)
    old_noise = 0.3 * torch.randn(PROMPTS * GROUP, WIDTH)
    ref_noise = 0.3 * torch.randn(PROMPTS * GROUP, WIDTH)
    ids, prompts, counts, where = distinct(case)
    for noise in (old_noise, ref_noise):  # equal completions were sampled with equal probabilities
        for sample, index in enumerate(where):
            noise[sample] = noise[where.index(index)]

    policy = Policy(ours_model, case["encoder"].label_ids, case["encoder"].end_id)
    mask = torch.tensor([[float(len(c) > t) for t in range(WIDTH)] for c in ids])
    rollout = Rollout(
        ids, torch.tensor(prompts), torch.tensor(counts, dtype=torch.float32), torch.zeros(0), mask, torch.zeros(0),
        torch.zeros(0), torch.zeros(PROMPTS),
    )  # fmt: skip
    rows = torch.tensor([where.index(i) for i in range(len(ids))])
    scale = loss_type != "dr_grpo"
    found = group_advantages(
        case["rewards"][rows], rollout.counts, rollout.prompt, PROMPTS, normalise="sum", scale=scale
    )
    now = completion_logprobs(policy, [case["group"]], rollout)
    ours = policy_loss(
        now,
        now.detach() + old_noise[rows],
        found.values,
        mask,
        rollout.counts,
        reference=now.detach() + ref_noise[rows],
        beta=beta,
        loss_type=loss_type,
        max_completion_tokens=WIDTH,
    ).mean
    ours.backward()

    summed = case["rewards"].sum(1).view(PROMPTS, GROUP)
    expected = summed - summed.mean(1, keepdim=True)
    if scale:
        expected = expected / (summed.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(found.values[where], expected.view(-1), rtol=1e-5, atol=1e-6)

    other = trainer(tmp_path, theirs_model, case["base"].tokenizer, loss_type=loss_type, beta=beta)
    other.model.train()
    pad = case["encoder"].end_id
    whole = [[*case["group"].prefix_ids, *own] for own in case["group"].own_ids]
    longest = max(map(len, whole))
    prompt_ids = torch.tensor([[pad] * (longest - len(p)) + p for p in whole]).repeat_interleave(GROUP, 0)
    prompt_mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in whole]).repeat_interleave(GROUP, 0)
    sampled = [c for group in case["completions"] for c in group]
    completion_ids = torch.tensor([[*c, *[pad] * (WIDTH - len(c))] for c in sampled])
    completion_mask = torch.tensor([[1] * len(c) + [0] * (WIDTH - len(c)) for c in sampled])
    now_full = now.detach()[where]
    other.current_gradient_accumulation_steps = 1
    theirs = other._compute_loss(
        other.model,
        {
            "prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "completion_ids": completion_ids,
            "completion_mask": completion_mask, "advantages": expected.view(-1),
            "old_per_token_logps": now_full + old_noise, "ref_per_token_logps": now_full + ref_noise,
            "num_items_in_batch": completion_mask.sum(),
        },
    )  # fmt: skip
    theirs.backward()

    # Terms of size 1 that nearly cancel: their sum carries float32's rounding of 1, 1.2e-7, a few times over.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    gradients = {name: p.grad for name, p in other.model.named_parameters() if p.grad is not None}
    assert len(gradients) > 10
    for name, parameter in ours_model.named_parameters():
        scale_of = gradients[name].abs().max().item()
        torch.testing.assert_close(
            parameter.grad, gradients[name], rtol=1e-5, atol=1e-5 * scale_of, msg=lambda m, n=name: f"{n}: {m}"
        )
