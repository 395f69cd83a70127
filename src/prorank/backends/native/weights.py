"""The weights' file of our own engine, checked, and in memory as ``native.c`` wants them (model.h, field by field)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank.backends.mapped import give_back, map_tensors
from prorank.backends.native.room import Room

__all__ = ["FORMAT", "GROUP", "PARTS", "WEIGHTS", "Batch", "Weights"]

WEIGHTS = "native.safetensors"
FORMAT = "1"
"""Version of the file's layout."""
PARTS = ("qkv", "out", "gate_up", "down")
"""A block's linear layers: ``layers.3.qkv.weight`` is int8 ``(outputs, inputs)``, ``.scale`` float32
``(outputs, inputs / 64)``, a step for 64 neighbouring inputs, ``.bias``, where the model has one, float32
``(outputs,)``. ``gate_up``: 32 rows of the gate, the 32 of the values that it opens, and so on."""
GROUP = 64
"""Neighbouring inputs of a layer that share a scale; a Hadamard matrix spreads them before they are rounded."""
PANEL = 64  # outputs that stand together in native.c
_SIZES = ("layers", "hidden", "heads", "key_heads", "size", "inner")


class _Linear(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p), ("shift", ctypes.c_void_p), ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p), ("inputs", ctypes.c_int32), ("outputs", ctypes.c_int32),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", ctypes.c_void_p), ("block_norm", ctypes.c_void_p),
        ("query_norm", ctypes.c_void_p), ("key_norm", ctypes.c_void_p),
        ("qkv", _Linear), ("out", _Linear), ("gate_up", _Linear), ("down", _Linear),
    )  # fmt: skip


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("layers", "hidden", "heads", "key_heads", "size", "inner")),
        ("epsilon", ctypes.c_float), ("rotary_scale", ctypes.c_float), ("frequencies", ctypes.c_void_p),
        ("embeddings", ctypes.c_void_p), ("norm", ctypes.c_void_p), ("layer", ctypes.POINTER(_Layer)),
    )  # fmt: skip


class Batch(ctypes.Structure):
    """See model.h."""

    _fields_ = (
        ("ids", ctypes.c_void_p), ("lengths", ctypes.c_void_p), ("rows", ctypes.c_int32), ("width", ctypes.c_int32),
        ("past", ctypes.c_void_p), ("before", ctypes.c_int32), ("present", ctypes.c_void_p),
        ("from_layer", ctypes.c_int32), ("to_layer", ctypes.c_int32), ("stream", ctypes.c_void_p),
        ("states", ctypes.c_void_p),
    )  # fmt: skip


class Weights:
    """The file's weights as ``native.c`` wants them; embeddings stay in the file and are read row by row.

    Within :func:`prorank.backends.native.room.packed_in` several processes share the packed layers.
    """

    def __init__(self, path: Path, library: ctypes.CDLL) -> None:
        tensors, facts = map_tensors(path)
        if facts.get("format") != FORMAT:
            raise ValueError(f"{path}: layout {facts.get('format')!r}, wanted {FORMAT!r}: run `prorank export` again")
        try:
            sizes = {name: int(facts[name]) for name in _SIZES}
            numbers = {name: float(facts[name]) for name in ("epsilon", "rotary_scale")}
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}: damaged: the model's sizes are not all there: {error}") from error
        _check(path, sizes, tensors)
        self._kept: list[npt.NDArray[Any]] = []  # ctypes holds no references
        self._tensors, self._library = tensors, library
        linear = [tensors[f"layers.{i}.{part}.weight"].shape for i in range(sizes["layers"]) for part in PARTS]
        parts = [size for o, i in linear for size in (o * i, o * i // GROUP * 4, o * i // GROUP * 4)]
        about = path.stat()
        self._room = Room(parts, f"{library._name} {path.resolve()} {about.st_size} {about.st_mtime_ns}")
        layers = (_Layer * sizes["layers"])(*(self._layer(f"layers.{i}.") for i in range(sizes["layers"])))
        self.vocabulary = len(tensors["embeddings"])
        self.model = _Model(
            **sizes, **numbers, frequencies=self._vector("frequencies"), embeddings=self._keep(tensors["embeddings"]),
            norm=self._vector("norm"), layer=layers,
        )  # fmt: skip
        self._room.filled()
        give_back(path)  # the packed copy is what runs

    def _layer(self, prefix: str) -> _Layer:
        norms = [self._vector(prefix + name) for name in ("attention_norm", "block_norm", "query_norm", "key_norm")]
        return _Layer(*norms, *(self._linear(f"{prefix}{part}") for part in PARTS))

    def _linear(self, name: str) -> _Linear:
        weight = self._tensors[f"{name}.weight"]
        outputs, inputs = weight.shape
        scale = self._tensors[f"{name}.scale"]
        packed, shift = self._room.take((outputs * inputs,), np.int8), self._room.take(scale.shape, np.int32)
        scales = self._room.take((outputs // PANEL, scale.shape[1], PANEL), np.float32)
        if not self._room.ready:
            self._library.prorank_pack(
                ctypes.c_void_p(weight.ctypes.data), outputs, inputs, ctypes.c_void_p(packed.ctypes.data),
                ctypes.c_void_p(shift.ctypes.data),
            )  # fmt: skip
            scales[...] = scale.reshape(-1, PANEL, scale.shape[1]).transpose(0, 2, 1)
        return _Linear(
            self._keep(packed), self._keep(shift), self._keep(scales), self._vector(f"{name}.bias"), inputs, outputs
        )

    def _vector(self, name: str) -> int | None:
        found = self._tensors.get(name)
        return None if found is None else self._keep(np.array(found, dtype=np.float32))

    def _keep(self, array: npt.NDArray[Any]) -> int:
        self._kept.append(array)
        return array.ctypes.data


def _check(path: Path, sizes: Mapping[str, int], tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Whether every tensor is there with its type and shape: ``native.c`` looks at neither."""
    hidden, size, inner = sizes["hidden"], sizes["size"], sizes["inner"]
    queries, keys = sizes["heads"] * size, sizes["key_heads"] * size
    fits = min(sizes.values()) > 0 and not (hidden % GROUP or inner % GROUP or queries % GROUP or size % 16)
    if not fits or sizes["heads"] % sizes["key_heads"]:
        raise ValueError(f"{path}: damaged: {', '.join(f'{name} {value}' for name, value in sizes.items())}")
    shapes = {
        "qkv": (-(-(queries + 2 * keys) // PANEL) * PANEL, hidden), "out": (hidden, queries),
        "gate_up": (2 * inner, hidden), "down": (hidden, inner),
    }  # fmt: skip
    vocabulary = len(tensors.get("embeddings", ()))
    wanted: dict[str, tuple[tuple[int, ...], type]] = {
        "embeddings": ((vocabulary, hidden), np.float16),
        "norm": ((hidden,), np.float32),
        "frequencies": ((size // 2,), np.float32),
    }
    for at in (f"layers.{i}." for i in range(sizes["layers"])):
        for part, (outputs, inputs) in shapes.items():
            wanted[f"{at}{part}.weight"] = (outputs, inputs), np.int8
            wanted[f"{at}{part}.scale"] = (outputs, inputs // GROUP), np.float32
            if f"{at}{part}.bias" in tensors:
                wanted[f"{at}{part}.bias"] = (outputs,), np.float32
        wanted |= {f"{at}{name}_norm": ((hidden,), np.float32) for name in ("attention", "block")}
        norms = [f"{at}{name}_norm" for name in ("query", "key") if f"{at}{name}_norm" in tensors]
        wanted |= dict.fromkeys(norms, ((size,), np.float32))
    for name, (shape, kind) in wanted.items():
        found = tensors.get(name)
        if found is None:
            raise ValueError(f"{path}: damaged: {name} is missing")
        if found.shape != shape or found.dtype != kind:
            raise ValueError(f"{path}: damaged: {name} is {found.dtype} {found.shape}, wanted {np.dtype(kind)} {shape}")
