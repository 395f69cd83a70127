"""LoRA layers that multiply once learn what PEFT's own layers learn."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from testkit.tiny_models import make_tiny


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])  # qwen2 has biases
def test_outputs_and_gradients_are_pefts(architecture: str, base_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from prorank.training.merged_lora import use_merged_lora

    folder = make_tiny(tmp_path / "tiny", architecture, AutoTokenizer.from_pretrained(base_folder))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(0)
    theirs = get_peft_model(base, config)
    ours = copy.deepcopy(theirs)
    assert use_merged_lora(ours) == 2 * 7
    ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])

    def run(model: torch.nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        logits = model(input_ids=ids).logits
        logits.float().log_softmax(-1)[..., 7].sum().backward()
        return logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    for _ in range(2):  # the second time with other weights: the merged ones must follow
        (wanted, their_gradients), (got, our_gradients) = run(theirs), run(ours)
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
        assert set(our_gradients) == set(their_gradients)
        for name, gradient in their_gradients.items():
            scale = max(1.0, float(gradient.abs().max()))
            assert float((our_gradients[name] - gradient).abs().max()) <= 1e-4 * scale, name
        with torch.no_grad():
            for model in (theirs, ours):
                for name, parameter in model.named_parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.01 * their_gradients[name].sign())
    with ours.disable_adapter(), theirs.disable_adapter():
        torch.testing.assert_close(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)
    merged = copy.deepcopy(ours).merge_and_unload()
    torch.testing.assert_close(merged(input_ids=ids).logits, ours(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_layers_of_another_kind_stay_as_they_are(base_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from prorank.training.merged_lora import use_merged_lora

    folder = make_tiny(tmp_path / "tiny", "llama", AutoTokenizer.from_pretrained(base_folder))
    for settings in ({"lora_dropout": 0.1}, {"use_dora": True}):
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", **settings))
        assert use_merged_lora(model) == 0
