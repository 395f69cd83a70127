"""The last layer at the positions that are read: the same states there, and no work elsewhere."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from prorank.backends.last_layer import can_skip_unread, reading, skip_unread
from prorank.backends.torch import decoder_of
from testkit.tiny_models import make_tiny


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3"])
def test_the_states_that_are_read_are_the_models_own(family: str, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path / family, family, tokenizer)).eval()
    decoder = decoder_of(model)
    ids = torch.arange(3 * 7).reshape(3, 7) % 40 + 40
    columns = torch.tensor([6, 2, 4])
    with torch.inference_mode():
        wanted = decoder(input_ids=ids).last_hidden_state
        assert can_skip_unread(decoder)
        skip_unread(decoder)
        skip_unread(decoder)  # twice is once
        twin = copy.deepcopy(decoder)
        seen: list[int] = []
        for product in (decoder.layers[-1].self_attn.o_proj, decoder.layers[-1].mlp.down_proj):
            product.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[:-1].numel()))
        with reading(columns):
            got = decoder(input_ids=ids).last_hidden_state
        with reading(None):
            decoder(input_ids=ids)
        assert torch.equal(decoder(input_ids=ids).last_hidden_state, wanted), "outside of reading all is as before"
        assert seen == [3, 3, 1, 1, 21, 21]
        torch.testing.assert_close(got[range(3), columns], wanted[range(3), columns], atol=1e-5, rtol=0)
        twin.layers[-1].mlp.down_proj.weight.zero_()
        with reading(columns):
            changed = twin(input_ids=ids).last_hidden_state
    assert not torch.allclose(changed[range(3), columns], got[range(3), columns]), "a copy runs its own weights"


def test_other_blocks_are_left_alone() -> None:
    assert not can_skip_unread(torch.nn.Linear(2, 2))
    decoder = torch.nn.Module()
    decoder.layers = torch.nn.ModuleList([torch.nn.Module()])
    assert not can_skip_unread(decoder)
    decoder.layers[0].mlp = torch.nn.Linear(2, 2)
    assert not can_skip_unread(decoder)
