"""Writes a model as int8 for our own engine: with numpy alone, layer by layer.

Weights are spread by Hadamard matrices in groups of 64 and rounded to the nearest step; the adapter, if there is one,
has been merged before (:class:`prorank.model.lora.Merged`). The file's layout is that of
:data:`prorank.backends.native.engine.PARTS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank.backends.graph import HEAD
from prorank.backends.native.engine import FORMAT, GROUP, WEIGHTS
from prorank.model.weights import Array, Weights

__all__ = ["hadamard", "write_int8", "write_labels"]

_HALF = 32  # rows of the gate, and of what it opens, that stand together
_PANEL = 64  # outputs that stand together
_LOW, _HIGH = -128, 127
_ROWS = 8192  # of the embeddings, at a time
_MOST = 16  # tensors of a layer
_ENTRY = 192  # bytes that a tensor takes in the header, at most
_KINDS = {"int8": "I8", "float16": "F16", "float32": "F32"}


def write_int8(weights: Weights, folder: Path) -> Path:
    """Write ``native.safetensors``.

    Raises:
        BaseError: a tensor is missing or damaged.
        OSError: the disk is full, or cannot be written to.
    """
    facts = {"format": FORMAT, **weights.architecture.facts()}
    path = folder / WEIGHTS
    most = (weights.architecture.layers + 1) * _MOST
    _write_tensors(path, _tensors(weights), most, {name: str(value) for name, value in facts.items()})
    return path


def write_labels(weights: Weights, label_ids: tuple[int, int], folder: Path) -> None:
    """Write ``labels.safetensors``: the two rows of the output matrix, and their biases."""
    from safetensors.numpy import save_file

    name = "lm_head.weight" if weights.shape("lm_head.weight") else "model.embed_tokens.weight"
    rows = np.concatenate([weights.read(name, number, number + 1) for number in label_ids])
    save_file({"rows": rows, "bias": np.zeros(2, np.float32)}, folder / HEAD)


def hadamard(size: int) -> Array:
    """The orthogonal Hadamard matrix; ``size`` is a power of 2."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.float32(size**0.5)


def _tensors(weights: Weights) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """What the file holds, one after the other."""
    matrix = hadamard(GROUP)
    for number in range(weights.architecture.layers):
        here, there = f"layers.{number}.", f"model.layers.{number}."
        for part, names in (
            ("qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("out", ("self_attn.o_proj",)),
            ("gate_up", ("mlp.gate_proj", "mlp.up_proj")),
            ("down", ("mlp.down_proj",)),
        ):
            join = _alternating if part == "gate_up" else np.concatenate
            rows = _to_panels(join([weights.read(f"{there}{name}.weight") for name in names]))
            grid, step = _on_grid(rows, matrix)
            yield f"{here}{part}.weight", grid
            yield f"{here}{part}.scale", step
            biases = [f"{there}{name}.bias" for name in names if weights.shape(f"{there}{name}.bias")]
            if biases:
                yield f"{here}{part}.bias", _to_panels(join([weights.read(name) for name in biases]))
        for name, of in (
            ("attention_norm", "input_layernorm"),
            ("block_norm", "post_attention_layernorm"),
            ("query_norm", "self_attn.q_norm"),
            ("key_norm", "self_attn.k_norm"),
        ):
            if weights.shape(f"{there}{of}.weight"):
                yield here + name, weights.read(f"{there}{of}.weight")
    yield "norm", weights.read("model.norm.weight")
    yield "frequencies", weights.architecture.frequencies
    embeddings = "model.embed_tokens.weight"
    shape = weights.shape(embeddings) or (weights.architecture.vocabulary, weights.architecture.hidden)
    halves = np.empty(shape, np.float16)
    for start in range(0, len(halves), _ROWS):
        halves[start : start + _ROWS] = weights.read(embeddings, start, start + _ROWS)
    yield "embeddings", halves


def _alternating(tensors: list[Array]) -> Array:
    """32 rows of the first, 32 of the second, and so on."""
    parts = [tensor.reshape(-1, 1, _HALF, *tensor.shape[1:]) for tensor in tensors]
    return np.concatenate(parts, axis=1).reshape(-1, *tensors[0].shape[1:])


def _to_panels(tensor: Array) -> Array:
    """Zero rows are added until 64 divide their number."""
    missing = -len(tensor) % _PANEL
    return np.concatenate([tensor, np.zeros((missing, *tensor.shape[1:]), np.float32)]) if missing else tensor


def _on_grid(weight: Array, matrix: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Int8 weights, spread by the matrix, and a step for every group of a row: its largest weight is -128 steps, as in
    :mod:`prorank.export.rounding`."""
    groups = weight.reshape(len(weight), -1, GROUP) @ matrix
    places = np.abs(groups).argmax(-1, keepdims=True)
    step = np.take_along_axis(groups, places, -1) / np.float32(_LOW)
    step[step == 0] = 1.0
    grid = np.clip(np.rint(groups / step), _LOW, _HIGH).astype(np.int8)
    return grid.reshape(weight.shape), step[:, :, 0]


def _write_tensors(
    path: Path, tensors: Iterator[tuple[str, npt.NDArray[Any]]], most: int, metadata: Mapping[str, str]
) -> None:
    """A safetensors file, written as the tensors come; the header, which stands first, is filled in at the end.

    Args:
        most: how many tensors there may be.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    room, end = (most * _ENTRY + 1024) // 64 * 64 - 8, 0
    with open(path, "wb") as file:
        file.write(bytes(8 + room))
        for name, tensor in tensors:
            stop = end + tensor.nbytes
            header[name] = {
                "dtype": _KINDS[str(tensor.dtype)],
                "shape": list(tensor.shape),
                "data_offsets": [end, stop],
            }
            file.write(np.ascontiguousarray(tensor).data)
            end = stop
        file.seek(0)
        file.write(room.to_bytes(8, "little") + json.dumps(header).encode().ljust(room))  # blanks are allowed
