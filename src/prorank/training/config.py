"""The settings that both stages share, with defaults and meanings: the single source of flags, recipes and docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """What both stages have in common: data limits, optimiser, adapters, evaluation and saving."""

    steps: int = 150
    """Optimiser steps."""
    queries_per_step: int = 4
    """Queries per step, each with its documents, which share the query's prefix."""
    held_out: float = 0.1
    """Share of the queries held out for evaluation, chosen by a hash of their ids."""
    held_out_queries: int = 96
    """How many held-out queries an evaluation uses."""
    document_tokens: int = 96
    """Token limit of a document; the rest is cut."""
    long_documents: Literal["auto", "truncate", "excerpt"] = "auto"
    """What to keep of a longer document: its beginning, or an excerpt by the query's words; auto: what the model to be
    trained does. Saved with the model."""
    query_tokens: int = 48
    """Token limit of a query; the rest is cut."""
    seed: int = 0
    """Seed of prompts, sampling and initial adapters."""

    learning_rate: float = 1e-3
    """AdamW's peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warmup steps."""
    warmup_steps: int = 5
    """Steps over which the learning rate rises linearly."""
    final_share: float = 0.1
    """Learning rate at the end, as a share of the peak."""
    adam_beta2: float = 0.99
    """AdamW's second-moment decay."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """Clip gradients to this norm."""
    full_parameters: bool = False
    """Train all weights (the reference policy is then a frozen copy) instead of LoRA."""
    lora_rank: int = 32
    """Rank of the LoRA matrices on every linear layer."""
    lora_alpha: float = 32.0
    """LoRA scale: alpha / rank."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of the base's weights and of multiplications; adapters and optimiser are float32."""
    eval_every: int = 50
    """Steps between evaluations on held-out queries."""
    save_every: int = 10
    """Steps between saves of the training state."""
    patience: int = 0
    """Stop after this many evaluations without gain (0: never); in warmup, only once format success is 99 %."""

    def __post_init__(self) -> None:
        self._at_least_one(
            "steps", "queries_per_step", "document_tokens", "query_tokens", "lora_rank",
            "eval_every", "save_every", "held_out_queries",
        )  # fmt: skip
        self._shares("final_share")
        for name in ("learning_rate", "max_grad_norm", "lora_alpha"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        self._not_negative("patience", "warmup_steps", "weight_decay")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out: expected a share between 0 and 1, got {self.held_out}")

    def _at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def _shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {getattr(self, name)}")

    def _not_negative(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
