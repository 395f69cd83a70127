"""The policy as the reranker that a user of its checkpoint will get, for held-out checks, without a copy of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prorank.backends.last_layer import read_everything
from prorank.backends.torch import TorchBackend, decoder_of
from prorank.prompt.encoder import PromptEncoder
from prorank.reranker import Reranker
from prorank.training.merged_lora import forget_merged
from prorank.training.policy import Policy

__all__ = ["trial_reranker"]


@contextlib.contextmanager
def trial_reranker(policy: Policy, encoder: PromptEncoder) -> Iterator[Reranker]:
    """A reranker on the policy's own weights; afterwards the policy is as before, bit for bit.

    LoRA layers score through their adapters, which multiply with the merged weight as a finished checkpoint does. With
    full parameters the weights stand in the precision of the multiplications meanwhile: the only copy that is made.
    """
    wrapped = policy.model
    model = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    attention, training = model.config._attn_implementation, wrapped.training
    kept = []
    if wrapped is model and policy.autocast is not None:
        kept = [(parameter, parameter.data) for parameter in model.parameters()]
    forget_merged(model)
    try:
        for parameter, data in kept:
            parameter.data = data.to(policy.autocast)
        yield Reranker(TorchBackend(model, encoder.label_ids), encoder, name="in training")
    finally:
        for parameter, data in kept:
            parameter.data = data
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        read_everything(decoder_of(model))
        forget_merged(model)
        wrapped.train(training)
