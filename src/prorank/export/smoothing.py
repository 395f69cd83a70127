"""Moves the outliers of activations into the weights, so that both round to int8 with less loss.

SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): the input channels of a linear layer are divided by s and its weight's
columns multiplied by s, which changes nothing but what is rounded. The division goes into what comes before: a norm's
weight, or the rows of `v_proj` and `up_proj`. s is the geometric mean of what the channel's largest activation and its
largest weight ask for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from prorank.model.smoothing import PLACES

__all__ = ["smoothed", "smoothing_scales"]

_LIMIT = 100.0  # no channel is scaled by more than this
_TOLERANCE = 1e-3  # of the largest output: more than float32 rounding gives


class _Joint(NamedTuple):
    """A place between layers where channels can be scaled."""

    before: list[torch.nn.Parameter]
    """Divided along their first dimension."""
    after: list[torch.nn.Linear]
    """Their weights are multiplied by column."""
    heads: tuple[int, int] = (1, 1)
    """(key-value heads, query heads that share one): channels of ``after`` that one channel of ``before`` feeds."""


@contextlib.contextmanager
def smoothed(model: Any, run: Callable[[], torch.Tensor]) -> Iterator[bool]:
    """The model with its channels scaled, and afterwards as it was.

    Args:
        model: a float32 transformers causal LM; scaled are blocks of Llama's layout (Qwen2, Qwen3, Mistral).
        run: sends typical input through the model and returns its output, to see that it stays the same.

    Yields:
        Whether it was scaled: False where the layout is another, or the output would change.
    """
    joints = [joint for layer in model.base_model.layers for joint in _joints(layer, model.config.get_text_config())]
    scales, wanted = _found(joints, run)
    before = {p: p.data for joint in joints for p in [*joint.before, *(layer.weight for layer in joint.after)]}
    try:
        with torch.no_grad():
            for joint, scale in zip(joints, scales, strict=True):
                _apply(joint, scale)
            same = bool(joints) and bool((run() - wanted).abs().max() <= _TOLERANCE * wanted.abs().max())
        if not same:
            _restore(before)
        yield same
    finally:
        _restore(before)


def smoothing_scales(model: Any, run: Callable[[], torch.Tensor]) -> dict[str, torch.Tensor]:
    """What :func:`smoothed` scales by, by the names of :data:`prorank.model.smoothing.PLACES`.

    Args:
        model, run: see :func:`smoothed`.

    Raises:
        ValueError: the layout is another, or the output would change.
    """
    with smoothed(model, run) as same:
        if not same:
            raise ValueError("smoothing: the model's layout is none of Llama's kind, or its output would change")
    names, joints = [], []
    for number, layer in enumerate(model.base_model.layers):
        names += [f"layers.{number}.{place}" for place in PLACES]
        joints += _joints(layer, model.config.get_text_config())
    return dict(zip(names, _found(joints, run)[0], strict=True))


def _found(joints: list[_Joint], run: Callable[[], torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """A scale a channel for each joint, and the output of ``run``. (No joint's scales depend on what another's do.)"""
    ranges: dict[torch.nn.Module, torch.Tensor] = {}
    with _watching([joint.after[0] for joint in joints], ranges):
        wanted = run()
    with torch.no_grad():
        return [_scale(joint, ranges[joint.after[0]]) for joint in joints], wanted


def _joints(layer: Any, config: Any) -> list[_Joint]:
    try:
        attention, mlp = layer.self_attn, layer.mlp
        queries, keys, values, out = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
        gate, up, down = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        norms = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
    except AttributeError:
        return []
    groups = (config.num_key_value_heads, config.num_attention_heads // config.num_key_value_heads)
    return [
        _Joint([norms[0]], [queries, keys, values]),
        _Joint([norms[1]], [gate, up]),
        _Joint([p for p in (values.weight, values.bias) if p is not None], [out], groups),
        _Joint([p for p in (up.weight, up.bias) if p is not None], [down]),
    ]


@contextlib.contextmanager
def _watching(layers: list[torch.nn.Linear], ranges: dict[torch.nn.Module, torch.Tensor]) -> Iterator[None]:
    """Keeps the largest input of every channel."""

    def see(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        largest = inputs[0].detach().flatten(0, -2).abs().amax(0)
        ranges[layer] = torch.maximum(ranges[layer], largest) if layer in ranges else largest

    hooks = [layer.register_forward_pre_hook(see) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _scale(joint: _Joint, activations: torch.Tensor) -> torch.Tensor:
    keys, shared = joint.heads
    weights = torch.stack([layer.weight.abs().amax(0) for layer in joint.after]).amax(0)
    # Where one channel feeds several (grouped queries), the largest of them counts.
    fed = [x.reshape(keys, shared, -1).amax(1).flatten().clamp(min=1e-5) for x in (activations, weights)]
    scale = (fed[0] / fed[1]).sqrt()
    found: torch.Tensor = (scale / scale.log().mean().exp()).clamp(1 / _LIMIT, _LIMIT)
    return found


def _apply(joint: _Joint, scale: torch.Tensor) -> None:
    keys, shared = joint.heads
    for parameter in joint.before:
        parameter.data = parameter.data / scale.reshape(-1, *[1] * (parameter.dim() - 1))
    columns = scale.reshape(keys, 1, -1).expand(keys, shared, -1).flatten()
    for layer in joint.after:
        layer.weight.data = layer.weight.data * columns


def _restore(before: dict[torch.Tensor, torch.Tensor]) -> None:
    for parameter, data in before.items():
        parameter.data = data
