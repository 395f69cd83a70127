"""Rounding that compensates: on NNCF's grid, and closer to what the layer gave than rounding each weight alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from prorank.export.rounding import inverse_factor, rounded, rounded_matrix
from testkit.tiny_models import make_tiny

PROMPTS = [[5, 900, 31, 77, 4, 1200, 8, 650], [7, 12, 640], list(range(20, 60))]


def nearest(weight: torch.Tensor) -> torch.Tensor:
    """Every weight to the next of 256 steps, a scale a row."""
    places = weight.abs().argmax(1, keepdim=True)
    step = weight.gather(1, places) / -128
    return (weight / step).round().clamp(-128, 127) * step


def test_what_one_column_loses_the_next_makes_up_for():
    """Steps of 1; the last two columns always get the same input. 10.4 + 20.4 becomes 10 + 21, not 10 + 20."""
    inputs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 2.0, 2.0]])
    found = rounded_matrix(torch.tensor([[-128.0, 10.4, 20.4]]), inverse_factor(inputs))
    assert found.tolist() == [[-128.0, 10.0, 21.0]]


@pytest.mark.parametrize("columns", [40, 300])  # within one block of columns, and over several
def test_it_loses_less_than_the_nearest_steps(columns):
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(2000, columns, generator=generator) @ mixing
    weight = torch.randn(24, columns, generator=generator)
    found = rounded_matrix(weight, inverse_factor(inputs))
    lost = [float((inputs @ (w - weight).T).square().mean()) for w in (found, nearest(weight))]
    assert lost[0] < 0.7 * lost[1], lost


def test_without_relations_between_inputs_it_is_the_nearest_steps():
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
    weight[2] = 0.0
    found = rounded_matrix(weight, inverse_factor(torch.eye(16)))
    assert torch.equal(found[2], torch.zeros(16))
    kept = [row for row in range(6) if row != 2]
    torch.testing.assert_close(found[kept], nearest(weight[kept]))


def test_nncf_rounds_it_to_itself():
    """What OpenVINO multiplies after compression is what came out here."""
    openvino, nncf = pytest.importorskip("openvino"), pytest.importorskip("nncf")
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(500, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    layer = torch.nn.Linear(64, 96, bias=False)
    layer.weight.data = rounded_matrix(torch.randn(96, 64, generator=generator), inverse_factor(inputs))
    converted = openvino.convert_model(layer, example_input=inputs[:2])
    compressed = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    given = openvino.compile_model(compressed, "CPU", exact)(inputs.numpy())[0]
    with torch.no_grad():
        wanted = layer(inputs).numpy()
    assert np.abs(given - wanted).max() < 1e-3 * np.abs(wanted).max()  # scales are kept in 16 bits


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_model_is_rounded_for_a_while(family: str, tokenizer: Any, tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path, family, tokenizer), dtype=torch.float32).eval()
    layers = [m for m in model.base_model.layers.modules() if isinstance(m, torch.nn.Linear)]
    before = [layer.weight.data.clone() for layer in layers]
    with rounded(model, PROMPTS):
        inside = [layer.weight.data.clone() for layer in layers]
        again = [nearest(weight) for weight in inside]
    for one, same in zip(inside, again, strict=True):
        torch.testing.assert_close(one, same)  # on the grid
    assert all(not torch.equal(a, b) for a, b in zip(inside, before, strict=True))
    assert all(torch.equal(layer.weight.data, old) for layer, old in zip(layers, before, strict=True))


def test_padding_counts_for_nothing(tokenizer: Any, tmp_path: Path):
    """Prompts in batches of their own length give the same weights as one padded batch."""
    model = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path, "llama", tokenizer), dtype=torch.float32).eval()
    layer = model.base_model.layers[0].self_attn.q_proj
    with rounded(model, PROMPTS):
        padded = layer.weight.data.clone()
    with torch.no_grad():
        states = [model.base_model.embed_tokens(torch.tensor(ids)) for ids in PROMPTS]
        inputs = model.base_model.layers[0].input_layernorm(torch.cat(states))
    torch.testing.assert_close(padded, rounded_matrix(layer.weight.data, inverse_factor(inputs)))
