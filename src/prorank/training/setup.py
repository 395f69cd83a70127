"""From a base, a prompt and a configuration to a policy to be trained and an encoder of its prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from prorank.backends.devices import pick_dtype
from prorank.model.base import LoadedBase, in_precision
from prorank.prompt.encoder import PromptEncoder
from prorank.training.config import TrainingConfig
from prorank.training.memory import keep_freed_memory
from prorank.training.merged_lora import use_merged_lora
from prorank.training.policy import Policy
from prorank.types import EncodedGroup

__all__ = ["Prompts", "build_policy", "reading_as", "training_encoder", "with_limits"]


class Prompts(Protocol):
    """A query with documents: what both stages draw."""

    @property
    def query(self) -> str: ...
    @property
    def documents(self) -> Sequence[str]: ...
    @property
    def instruction(self) -> str | None:
        """None: the template's own."""


def reading_as(encoder: PromptEncoder, config: TrainingConfig) -> PromptEncoder:
    """The prompts with the configuration's choice of what is kept of a long document, if it makes one."""
    return encoder if config.long_documents == "auto" else encoder.with_long_documents(config.long_documents)


def with_limits(
    encoder: PromptEncoder, config: TrainingConfig, instructions: Sequence[str | None] = (None,)
) -> PromptEncoder:
    """The prompts as training sees them: ``query_tokens`` and ``document_tokens`` as limits, one prompt a document.

    Args:
        instructions: all that will come; the longest decides how long a prompt may get.
    """
    prefixes = [encoder.encode("", [""], instruction).group.prefix_ids for instruction in instructions]
    length = max(map(len, prefixes)) + len(encoder.suffix_ids) + config.query_tokens + config.document_tokens
    reading = encoder.long_documents if config.long_documents == "auto" else config.long_documents
    return PromptEncoder(
        encoder.tokenizer, encoder.template, max_length=length, query_max_length=config.query_tokens,
        document_max_length=config.document_tokens,
        long_documents="truncate" if reading == "max_window" else reading,
    )  # fmt: skip


def training_encoder(
    encoder: PromptEncoder,
    model: Any,
    config: TrainingConfig,
    *,
    instructions: Sequence[str | None] = (None,),
    answer_tokens: int = 2,
    section: str = "warmup",
) -> Callable[[Prompts], EncodedGroup]:
    """Encodes a query's prompts :func:`with_limits`; suffixes are never cut.

    Args:
        answer_tokens: room that must be left for an answer.
        section: whose flags an error names.

    Raises:
        ValueError: such a prompt is longer than the model's context.
    """
    limited = with_limits(encoder, config, instructions)
    length = limited.max_length
    template = length - config.query_tokens - config.document_tokens
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and length + answer_tokens > positions:
        raise ValueError(
            f"--{section}.document_tokens: a prompt of {template} template, {config.query_tokens} query and "
            f"{config.document_tokens} document tokens is longer than the model's context of {positions}"
        )

    def encode(prompts: Prompts) -> EncodedGroup:
        return limited.encode(prompts.query, prompts.documents, prompts.instruction).group

    return encode


def build_policy(
    base: LoadedBase,
    encoder: PromptEncoder,
    config: TrainingConfig,
    device: torch.device,
    *,
    adapter: Path | None = None,
) -> Policy:
    """The base with LoRA adapters on every linear layer (or all its weights trainable).

    Adapters, and full parameters, are float32 whatever the precision of the multiplications.

    Args:
        adapter: a peft folder to go on from, with its own rank and scale; None: fresh adapters.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    if device.type == "cpu":
        keep_freed_memory()
    dtype = pick_dtype(config.precision, device)
    autocast = None if dtype == torch.float32 else dtype
    model: Any = base.model.to(device)
    torch.manual_seed(config.seed)
    if config.full_parameters:
        model = in_precision(model, torch.float32)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        policy = Policy(model.requires_grad_(True).train(), encoder.label_ids, encoder.end_id, autocast=autocast)
        if getattr(config, "beta", 0):
            policy.keep_reference()
    else:
        if adapter is not None:
            model = PeftModel.from_pretrained(in_precision(model, dtype), str(adapter), is_trainable=True)
        else:
            lora = LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # a float serves as well
                use_rslora=getattr(config, "rslora", False),
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            )
            model = get_peft_model(in_precision(model, dtype), lora)
        use_merged_lora(model)
        policy = Policy(model.train(), encoder.label_ids, encoder.end_id, autocast=autocast)
    _freeze(policy, getattr(config, "freeze_layers", 0))
    return policy


def _freeze(policy: Policy, layers: int) -> None:
    """Leave the lowest layers as they are.

    Raises:
        ValueError: nothing would be left to train.
    """
    if not layers:
        return
    frozen = re.compile(r"\.layers\.(\d+)\.")
    for name, parameter in policy.parameters():
        found = frozen.search(name)
        if found is not None and int(found.group(1)) < layers:
            parameter.requires_grad_(False)
    if not policy.parameters():
        raise ValueError(f"freeze_layers: {layers} leaves nothing to train")
