"""Gradients through a shared prefix equal those of plain, whole prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from prorank.training.policy import Policy
from prorank.training.refine.learner import ListLearner
from prorank.training.refine.lists import RankingList
from prorank.types import EncodedGroup
from testkit.refine import refine_config
from testkit.tiny_models import ARCHITECTURES

ITEM = RankingList("toy", "q", "query", None, ("a",) * 5, (0.0, 1.0, 0.0, 2.0, 0.0), (0.1, 1.0, -1.0, 0.5, 0.0))


def gradients(model: Any, group: EncodedGroup, **changes: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and the gradient of every weight."""
    config = refine_config(losses=("softmax=1", "bce=0.3", "kl=0.5"), format_cost=0.1, **changes)
    policy = Policy(model, (32, 33), 2)
    model.zero_grad(set_to_none=True)
    loss = ListLearner(policy, config).learn(ITEM, group).loss
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shared_prefix_gradients_equal_plain_ones(architecture: str, tiny_dirs: dict[str, Path]):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_dirs[architecture], dtype=torch.float32)
    torch.manual_seed(1)
    ids = torch.randint(100, 2000, (200,)).tolist()
    group = EncodedGroup(ids[:70], [ids[70 : 70 + n] for n in (9, 30, 4, 17, 30)], 20)
    loss, shared = gradients(model, group)
    plain_loss, plain = gradients(model, group, share_prefix=False)
    cached_loss, cached = gradients(model, group, forward_tokens=60)
    assert shared.keys() == plain.keys() == cached.keys()
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    assert loss == pytest.approx(cached_loss, rel=1e-5)
    scale = max(g.abs().max().item() for g in plain.values())
    for name, wanted in plain.items():
        assert (shared[name] - wanted).abs().max().item() <= 1e-5 * scale, name
        assert (cached[name] - wanted).abs().max().item() <= 1e-5 * scale, name


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_autocast_over_float32_weights_gives_nearly_the_same_direction(architecture: str, tiny_dirs: dict[str, Path]):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_dirs[architecture], dtype=torch.float32)
    torch.manual_seed(1)
    ids = torch.randint(100, 2000, (80,)).tolist()
    group = EncodedGroup(ids[:20], [ids[20 : 20 + n] for n in (9, 30, 4, 17, 30)], 5)
    _, wanted = gradients(model, group)
    policy = Policy(model, (32, 33), 2, autocast=torch.bfloat16)
    model.zero_grad(set_to_none=True)
    config = refine_config(losses=("softmax=1", "bce=0.3", "kl=0.5"), format_cost=0.1)
    ListLearner(policy, config).learn(ITEM, group)
    got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert got.keys() == wanted.keys()
    flat = [torch.cat([found[name].flatten() for name in wanted]) for found in (got, wanted)]
    assert torch.nn.functional.cosine_similarity(*flat, dim=0).item() >= 0.98
