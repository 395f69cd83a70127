"""LoRA layers that multiply with the merged weight: one matrix product forward instead of three.

PEFT computes W x + s B (A x); at rank 32 in a small model the two thin products, their casts and the sum cost about as
much as a third of the layer. Here W + s B A is formed once an update, rounded to the precision of the multiplications
(which is what the finished checkpoint will be scored with), and the gradients of A and B come from the layer's input
and output gradient, as they do in PEFT. Parameters, names and checkpoints stay PEFT's own.
"""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["forget_merged", "use_merged_lora"]


def use_merged_lora(model: Any) -> int:
    """Patch every LoRA layer that is a plain linear one (one adapter, no dropout, no DoRA, no LoRA bias).

    The merged weights take as much memory as the linear layers do in the base's own precision.

    Returns:
        How many layers now multiply once; the others go on as PEFT does.
    """
    from peft.tuners.lora.layer import Linear

    layers: list[Any] = [m for m in model.modules() if type(m) is Linear and _is_plain(m)]
    for layer in layers:
        layer.forward = types.MethodType(_forward, layer)
        layer._merged_weight, layer._merged_version = None, None
    return len(layers)


def forget_merged(model: Any) -> None:
    """Form the merged weights anew at the next pass: under autocast they are rounded otherwise than without it."""
    for layer in model.modules():
        if getattr(layer, "_merged_version", None) is not None:
            layer._merged_version = None


def _is_plain(layer: Any) -> bool:
    if len(layer.active_adapters) != 1 or type(layer.base_layer) is not torch.nn.Linear:
        return False
    name = layer.active_adapters[0]
    return (
        set(layer.lora_A) == {name}
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
        and layer.lora_B[name].bias is None
        and not layer.fan_in_fan_out
    )


def _forward(layer: Any, x: torch.Tensor, *_args: Any, **_options: Any) -> torch.Tensor:
    base = layer.base_layer
    if layer.disable_adapters or layer.merged:
        result: torch.Tensor = base(x)
        return result
    name = layer.active_adapters[0]
    a, b, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    version = (id(a), a._version, id(b), b._version)
    if layer._merged_version != version:
        with torch.inference_mode(False), torch.no_grad():
            merged = torch.addmm(base.weight.float(), b.float(), a.float(), alpha=scale)
            layer._merged_weight, layer._merged_version = merged.to(base.weight.dtype), version
    product: torch.Tensor = _MergedLinear.apply(x.to(base.weight.dtype), layer._merged_weight, base.bias, a, b, scale)
    return product


class _MergedLinear(torch.autograd.Function):
    """y = W' x + bias with W' = W + s B A, differentiable in x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        merged: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return F.linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        rows = x.reshape(-1, x.shape[-1])
        gradient = gradients[0].to(x.dtype).reshape(-1, merged.shape[0])
        for_x = (gradient @ merged).view(x.shape) if ctx.needs_input_grad[0] else None
        for_a = for_b = None
        if ctx.needs_input_grad[3]:
            for_a = ((gradient @ b.to(x.dtype)).T @ rows).to(a.dtype) * ctx.scale
        if ctx.needs_input_grad[4]:
            for_b = (gradient.T @ (rows @ a.to(x.dtype).T)).to(b.dtype) * ctx.scale
        return for_x, None, None, for_a, for_b, None
