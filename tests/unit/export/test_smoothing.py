"""Smoothing moves outliers from activations to weights: the same function, rounded with less loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from prorank.export.smoothing import smoothed
from testkit.tiny_models import make_tiny

IDS = torch.tensor([[5, 900, 31, 77, 4, 1200, 8, 650]])


@pytest.fixture(params=["llama", "qwen2", "qwen3"])
def model(request: pytest.FixtureRequest, tokenizer: Any, tmp_path: Path) -> Any:
    """A tiny model whose layers get, in a few channels, far larger values than in the rest, with weights as small."""
    tiny = AutoModelForCausalLM.from_pretrained(
        make_tiny(tmp_path, request.param, tokenizer), dtype=torch.float32
    ).eval()
    with torch.no_grad():
        for layer in tiny.base_model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            layer.input_layernorm.weight[3] *= 40
            layer.post_attention_layernorm.weight[3] *= 40
            for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
                reader.weight[:, 3] /= 40
            mlp.up_proj.weight[7] *= 40
            mlp.down_proj.weight[:, 7] /= 40
            attention.v_proj.weight[2] *= 40
            attention.o_proj.weight[:, [2, 10]] /= 40  # two query heads share a key-value head
    return tiny


def runner(model: Any) -> Callable[[], torch.Tensor]:
    """Last hidden states of a few tokens."""

    def run() -> torch.Tensor:
        with torch.no_grad():
            hidden: torch.Tensor = model.base_model(IDS).last_hidden_state
            return hidden

    return run


def rounded(model: Any) -> torch.Tensor:
    """The same with every linear layer's input in int8, a scale a token."""

    def to_int8(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        step = inputs[0].abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
        return ((inputs[0] / step).round() * step,)

    layers = [m for m in model.base_model.modules() if isinstance(m, torch.nn.Linear)]
    hooks = [layer.register_forward_pre_hook(to_int8) for layer in layers]
    try:
        return runner(model)()
    finally:
        for hook in hooks:
            hook.remove()


def test_the_function_stays_and_rounding_costs_less(model: Any) -> None:
    run = runner(model)
    wanted = run()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = (rounded(model) - wanted).pow(2).mean()
    with smoothed(model, run) as scaled:
        assert scaled
        torch.testing.assert_close(run(), wanted, rtol=1e-4, atol=1e-4)
        assert (rounded(model) - wanted).pow(2).mean() < plain / 2
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        kinds = ("layernorm", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        assert all(any(kind in name for name in changed) for kind in kinds)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_weights_come_back_after_an_error(model: Any) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(OSError, match="disk"), smoothed(model, runner(model)):
        raise OSError("disk full")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_layout_is_left_alone() -> None:
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=1300)).eval()
    gpt2.base_model.layers = gpt2.transformer.h
    with smoothed(gpt2, runner(gpt2)) as scaled:
        assert not scaled


def test_a_norm_that_adds_one_is_noticed(tokenizer: Any, tmp_path: Path) -> None:
    """Gemma's norms multiply with 1 + weight: dividing the weight changes the output, so nothing is scaled."""
    tiny = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path, "gemma3", tokenizer), dtype=torch.float32).eval()
    wanted = runner(tiny)()
    with smoothed(tiny, runner(tiny)) as scaled:
        assert not scaled
        torch.testing.assert_close(runner(tiny)(), wanted)
