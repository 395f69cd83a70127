"""The optimiser's part of a step, for both stages: rate, gradients over processes, clipping, update.

Gradients are summed by hand over processes, once a step: processes may then do different numbers of forward passes.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from prorank.training.config import TrainingConfig
from prorank.training.policy import Policy

__all__ = ["apply_gradients", "build_optimiser", "learning_rate_at", "summed"]


def build_optimiser(policy: Policy, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the trained parameters, in their order; with LoRA+ the B matrices have a rate of their own."""
    ratio = getattr(config, "lora_plus_ratio", 1.0)
    groups = [{"params": [p], "rate_ratio": ratio if ".lora_B." in name else 1.0} for name, p in policy.parameters()]
    plain = [{"params": [p for _, p in policy.parameters()], "rate_ratio": 1.0}]
    return torch.optim.AdamW(
        groups if ratio != 1.0 else plain,
        lr=config.learning_rate,
        betas=(0.9, config.adam_beta2),
        weight_decay=config.weight_decay,
    )


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Learning rate of a step (from 1): linear rise, then the schedule down to ``final_share`` of the peak."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    falling = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[config.schedule]
    floor = config.final_share if config.schedule != "constant" else 0.0
    return config.learning_rate * (floor + (1 - floor) * falling)


def apply_gradients(
    accelerator: Any,
    policy: Policy,
    optimiser: torch.optim.Optimizer,
    rate: float,
    normaliser: float,
    loss_sum: float,
    max_grad_norm: float,
) -> tuple[float, float]:
    """Average the summed gradients over the step's whole normaliser, clip, update.

    Args:
        normaliser: what this process's gradients and ``loss_sum`` are sums of (queries, tokens); added up over
            processes.

    Returns:
        Gradient norm before clipping, and mean loss. Where nothing was learned anywhere both are 0, and weights and
        moments stay as they are.

    Raises:
        ValueError: a gradient is not finite.
    """
    parameters = [p for _, p in policy.parameters()]
    normaliser, loss_sum = summed(accelerator, torch.tensor([normaliser, loss_sum], dtype=torch.float64)).tolist()
    if normaliser == 0:
        optimiser.zero_grad(set_to_none=True)
        return 0.0, 0.0
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if accelerator.num_processes > 1:
        flat = torch.cat([p.grad.reshape(-1) for p in parameters])  # type: ignore[union-attr]
        flat = accelerator.reduce(flat, reduction="sum")
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
    for parameter in parameters:
        parameter.grad.div_(normaliser)  # type: ignore[union-attr]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
    if not math.isfinite(norm):
        raise ValueError("the gradient is not finite: give a lower learning_rate, or precision float32")
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("rate_ratio", 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return norm, loss_sum / normaliser


def summed(accelerator: Any, values: torch.Tensor) -> torch.Tensor:
    """The sum over processes."""
    if accelerator.num_processes == 1:
        return values
    return accelerator.reduce(values.to(accelerator.device), reduction="sum").cpu()  # type: ignore[no-any-return]
