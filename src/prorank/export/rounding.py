"""Rounds weights to int8 so that what one column loses the columns after it make up for.

GPTQ (Frantar et al. 2022, arXiv 2210.17323) at eight bits: a layer's columns are rounded one by one, and the error of
each is spread over those still to come, as far as typical inputs move them together. The rounded weights stay float32;
they lie on the grid of NNCF's ``INT8_SYM``, which then rounds them to themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from prorank.backends.torch import padded

__all__ = ["inverse_factor", "rounded", "rounded_matrix", "spread_by_hadamard", "steps_of"]

_DAMPING = 0.01  # of the mean diagonal of the inputs' products, added to it
_BLOCK = 128  # columns between two updates of all that are left
LOW, HIGH = -128, 127


@contextlib.contextmanager
def rounded(model: Any, prompts: Sequence[Sequence[int]], *, group: int | None = None) -> Iterator[None]:
    """The model with the linear layers of its blocks rounded, and afterwards as it was.

    Layers are rounded in the order in which they run, each for inputs that come through the rounded ones before it.

    Args:
        model: a float32 transformers causal LM.
        prompts: typical token ids.
        group: so many neighbouring inputs are spread (:func:`spread_by_hadamard`), rounded with a scale of their own,
            and spread back; None: a scale a row.
    """
    ids, lengths = padded(prompts)
    real = torch.arange(ids.shape[1]) < lengths[:, None]
    blocks = getattr(model.base_model, "layers", ())
    layers = [m for block in blocks for m in block.modules() if isinstance(m, torch.nn.Linear)]
    before = {layer: layer.weight.data for layer in layers}
    seen: dict[str, Any] = {"inputs": None, "factor": None}

    def round_first(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if seen["inputs"] is not inputs[0]:  # layers that read the same input share what is computed from it
            tokens = inputs[0][real].float()
            seen.update(inputs=inputs[0], factor=inverse_factor(spread_by_hadamard(tokens, group) if group else tokens))
        weight = layer.weight.data
        if group is None:
            layer.weight.data = rounded_matrix(weight, seen["factor"])
        else:
            spread = spread_by_hadamard(weight, group)
            layer.weight.data = spread_by_hadamard(rounded_matrix(spread, seen["factor"], group), group)

    hooks = [layer.register_forward_pre_hook(round_first) for layer in layers]
    try:
        try:
            with torch.no_grad():  # padding comes last, where causal attention does not look
                model.base_model(ids, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        yield
    finally:
        for layer, weight in before.items():
            layer.weight.data = weight


def rounded_matrix(weight: torch.Tensor, factor: torch.Tensor, group: int | None = None) -> torch.Tensor:
    """A weight ``(out, in)`` on its int8 grid.

    The largest of the weights that share a scale, taken as -128 steps, sets it, as in NNCF's symmetric int8; it stays
    the largest.

    Args:
        factor: :func:`inverse_factor` of typical inputs, ``(in, in)``.
        group: neighbouring inputs that share a scale; None: a scale a row.
    """
    left = weight.T.contiguous()  # a column of the weight is a row here: side by side in memory
    found = torch.empty_like(left)
    size, scaled_from = group or _BLOCK, 0
    for start in range(0, len(left), size):
        stop = min(start + size, len(left))
        if group is not None or start == 0:
            step, largest = steps_of(left[start:stop] if group else left)
            scaled_from = start
        errors = torch.zeros_like(left[start:stop])
        for i in range(start, stop):
            grid = (left[i] / step).round().clamp(LOW, HIGH)
            found[i] = grid.masked_fill(largest[i - scaled_from], LOW) * step
            error = errors[i - start] = (left[i] - found[i]) / factor[i, i]
            left[i + 1 : stop] -= factor[i, i + 1 : stop, None] * error
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return found.T.contiguous()


def spread_by_hadamard(x: torch.Tensor, group: int) -> torch.Tensor:
    """Every ``group`` neighbours of the last dimension times the orthogonal Hadamard matrix.

    What stood out in one place is spread over all of them (QuaRot, Ashkboos et al. 2024, arXiv 2404.00456). Twice gives
    the first again.

    Args:
        group: a power of 2 that divides the dimension.
    """
    matrix = torch.ones(1, 1)
    while len(matrix) < group:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    found: torch.Tensor = (x.unflatten(-1, (-1, group)) @ (matrix / group**0.5)).flatten(-2)
    return found


def steps_of(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps ``(out,)`` of weights ``(in, out)`` that share them, and where the weights are that set them."""
    places = columns.abs().argmax(0, keepdim=True)
    step = columns.gather(0, places)[0] / LOW
    step[step == 0] = 1.0
    return step, torch.zeros_like(columns, dtype=torch.bool).scatter_(0, places, True) & (columns != 0)


def inverse_factor(inputs: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor ``(in, in)`` of the inverse of inputs' ``(tokens, in)`` damped products."""
    products = inputs.T @ inputs
    products.diagonal().add_(_DAMPING * products.diagonal().mean().clamp(min=1e-8))
    factor: torch.Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(products)), upper=True)
    return factor
