"""Our own engine: int8 on a processor with AVX-512 and VNNI, compiled from ``native.c`` when it is first used.

A batch runs on one core, and as many batches at a time as there are cores. There is no padding, nothing is copied for
the heads that share keys, and a score is the same to the last bit in whatever batch it is computed.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank.backends.cores import available_cores
from prorank.backends.graph import INPUTS, Array, GraphBackend
from prorank.backends.mapped import give_back, map_tensors
from prorank.backends.native.compiler import compiled, processor_features

__all__ = ["FORMAT", "PARTS", "WEIGHTS", "NativeBackend"]

WEIGHTS = "native.safetensors"
FORMAT = "1"
"""Version of the file's layout."""
PARTS = ("qkv", "out", "gate_up", "down")
"""A block's linear layers: ``layers.3.qkv.weight`` is int8 ``(outputs, inputs)``, ``.scale`` float32
``(outputs, inputs / 64)``, a step for 64 neighbouring inputs, ``.bias``, where the model has one, float32
``(outputs,)``. ``gate_up``: 32 rows of the gate, the 32 of the values that it opens, and so on."""
GROUP = 64
"""Neighbouring inputs of a layer that share a scale; a Hadamard matrix spreads them before they are rounded."""
_PANEL = 64  # outputs that stand together in native.c
_LINE = 64  # bytes: what native.c reads at a time begins at a multiple of it
_NEEDED = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma", "f16c")
_FLAGS = ("-O3", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma", "-mf16c")
_BATCH_TOKENS = 256


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


class _Batch(ctypes.Structure):
    _fields_ = (
        ("ids", ctypes.c_void_p), ("lengths", ctypes.c_void_p), ("rows", ctypes.c_int32), ("width", ctypes.c_int32),
        ("past", ctypes.c_void_p), ("before", ctypes.c_int32), ("present", ctypes.c_void_p),
        ("from_layer", ctypes.c_int32), ("to_layer", ctypes.c_int32), ("stream", ctypes.c_void_p),
        ("states", ctypes.c_void_p),
    )  # fmt: skip


class NativeBackend(GraphBackend):
    """Scores with ``native.c``.

    Args:
        folder: holds ``native.safetensors`` and ``labels.safetensors``.
        label_ids: (irrelevant, relevant) token ids, whose rows are in the folder, in this order.
        threads: cores; each computes a batch of its own. None: all.

    Raises:
        ValueError: the weights are missing or damaged.
        ImportError: this processor lacks AVX-512 with VNNI, or there is no C compiler.
    """

    def __init__(self, folder: Path, label_ids: tuple[int, int], *, threads: int | None = None) -> None:
        path = folder / WEIGHTS
        if not path.is_file():
            raise ValueError(f"{folder}: {WEIGHTS} is missing; write it with `prorank export --to native-int8`")
        self._library = loaded_library()
        self._weights = _Weights(path, self._library)
        model = self._model = self._weights.model
        super().__init__(folder, INPUTS, [2 * model.layers, 1, model.key_heads, 0, model.size], kind=np.uint16)
        self.label_ids = label_ids
        self.layers, self.hidden = int(model.layers), int(model.hidden)
        self.name = "native-cpu-int8"
        self.batch_tokens = _BATCH_TOKENS
        self.passes = threads or available_cores()
        self._spaces: SimpleQueue[npt.NDArray[np.uint8]] = SimpleQueue()
        for _ in range(self.passes):
            self._spaces.put(np.zeros(0, dtype=np.uint8))

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], states: bool) -> tuple[Array, npt.NDArray[Any] | None]:
        """See :class:`GraphBackend`; keys and values are bfloat16, as uint16."""
        model, lengths = self._model, inputs["last"] + 1
        last = np.empty((len(lengths), model.hidden), dtype=np.float32)
        present = None
        if states:
            present = np.empty((2 * model.layers, 1, model.key_heads, int(lengths[0]), model.size), dtype=np.uint16)
        self._run(lengths, inputs["past"], (0, model.layers), ids=inputs["ids"], present=present, states=last)
        return last, present

    def run_layers(
        self,
        lengths: npt.NDArray[np.int64],
        past: npt.NDArray[Any] | None,
        layers: tuple[int, int],
        *,
        ids: npt.NDArray[np.int64] | None = None,
        stream: Array | None = None,
    ) -> Array:
        """Some layers, from one to before another.

        Args:
            lengths: tokens of each row, ``(n,)``.
            past: of :meth:`GraphBackend.prefix`.
            ids: ``(n, width)``, for layers from the first.
            stream: states before the first of these layers, for others: ``(tokens, hidden)``, row after row; those
                after the last of them take their place.

        Returns:
            the states after them, ``(tokens, hidden)``; after the last layer those of each row's last token, normed,
            ``(n, hidden)``.
        """
        model, past = self._model, self._empty if past is None else past
        if layers[1] == model.layers:
            last = np.empty((len(lengths), model.hidden), dtype=np.float32)
            self._run(lengths, past, layers, ids=ids, stream=stream, states=last)
            return last
        if stream is None:
            stream = np.empty((int(lengths.sum()), model.hidden), dtype=np.float32)
        self._run(lengths, past, layers, ids=ids, stream=stream)
        return stream

    def _run(
        self, lengths: npt.NDArray[np.int64], past: npt.NDArray[Any], layers: tuple[int, int], *,
        ids: npt.NDArray[np.int64] | None = None, present: npt.NDArray[Any] | None = None, stream: Array | None = None,
        states: Array | None = None,
    ) -> None:  # fmt: skip
        if lengths.min() < 1:
            raise ValueError("own_ids: a row is empty: there is no last token to read")
        if ids is not None and (ids.min() < 0 or ids.max() >= self._weights.vocabulary):
            raise ValueError(
                f"token ids must lie in 0 to {self._weights.vocabulary - 1}, got {ids.min()} to {ids.max()}"
            )
        lengths, before = np.ascontiguousarray(lengths), past.shape[3]
        batch = _Batch(
            _address(ids), _address(lengths), len(lengths), 0 if ids is None else ids.shape[1],
            _address(past) if before else None, before, _address(present), *layers, _address(stream), _address(states),
        )  # fmt: skip
        model = ctypes.byref(self._model)
        space = self._spaces.get()
        try:
            needed = self._library.prorank_space(model, ctypes.byref(batch)) + _LINE
            if len(space) < needed:
                space = np.empty(needed, dtype=np.uint8)
            start = space.ctypes.data + -space.ctypes.data % _LINE
            self._library.prorank_run(model, ctypes.byref(batch), ctypes.c_void_p(start))
        finally:
            self._spaces.put(space)


def _address(array: npt.NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


def loaded_library() -> ctypes.CDLL:
    """The engine for this processor, compiled if need be.

    Raises:
        ImportError: the processor is too old, or there is no compiler.
    """
    return _library(processor_features())


@functools.cache
def _library(features: frozenset[str]) -> ctypes.CDLL:
    """``native.c`` as a library for a processor with these features."""
    lacks = [name for name in _NEEDED if name not in features]
    if lacks:
        raise ImportError(f"native: this processor has no {lacks[0]}; export to openvino-int8, which runs on any")
    flags = [*_FLAGS, *(["-mavx512bf16"] if "avx512_bf16" in features else [])]
    library = compiled(Path(__file__).with_name("native.c"), flags)
    library.prorank_space.restype = ctypes.c_size_t
    library.prorank_pack.restype = library.prorank_run.restype = None
    return library


class _Weights:
    """The file's weights as ``native.c`` wants them; embeddings stay in the file and are read row by row."""

    def __init__(self, path: Path, library: ctypes.CDLL) -> None:
        tensors, facts = map_tensors(path)
        if facts.get("format") != FORMAT:
            raise ValueError(f"{path}: layout {facts.get('format')!r}, wanted {FORMAT!r}: run `prorank export` again")
        self._kept: list[npt.NDArray[Any]] = []  # ctypes holds no references
        self._tensors, self._library = tensors, library
        sizes = {name: int(facts[name]) for name in ("layers", "hidden", "heads", "key_heads", "size", "inner")}
        layers = (_Layer * sizes["layers"])(*(self._layer(f"layers.{i}.") for i in range(sizes["layers"])))
        self.vocabulary = len(tensors["embeddings"])
        self.model = _Model(
            **sizes, epsilon=float(facts["epsilon"]), rotary_scale=float(facts["rotary_scale"]),
            frequencies=self._vector("frequencies"), embeddings=self._keep(tensors["embeddings"]),
            norm=self._vector("norm"), layer=layers,
        )  # fmt: skip
        give_back(path)  # the packed copy is what runs

    def _layer(self, prefix: str) -> _Layer:
        norms = [self._vector(prefix + name) for name in ("attention_norm", "block_norm", "query_norm", "key_norm")]
        return _Layer(*norms, *(self._linear(f"{prefix}{part}") for part in PARTS))

    def _linear(self, name: str) -> _Linear:
        weight = self._tensors[f"{name}.weight"]
        outputs, inputs = weight.shape
        scale = self._tensors[f"{name}.scale"]
        packed = _aligned(outputs * inputs, np.int8)
        shift = np.empty(scale.shape, dtype=np.int32)
        self._library.prorank_pack(
            ctypes.c_void_p(weight.ctypes.data), outputs, inputs, ctypes.c_void_p(self._keep(packed)),
            ctypes.c_void_p(self._keep(shift)),
        )  # fmt: skip
        scales = np.ascontiguousarray(scale.reshape(-1, _PANEL, scale.shape[1]).transpose(0, 2, 1))
        return _Linear(
            self._keep(packed), self._keep(shift), self._keep(scales), self._vector(f"{name}.bias"), inputs, outputs
        )

    def _vector(self, name: str) -> int | None:
        found = self._tensors.get(name)
        return None if found is None else self._keep(np.array(found, dtype=np.float32))

    def _keep(self, array: npt.NDArray[Any]) -> int:
        self._kept.append(array)
        return array.ctypes.data


def _aligned(size: int, kind: type) -> npt.NDArray[Any]:
    """An array that begins at a multiple of 64 bytes."""
    room: npt.NDArray[Any] = np.empty(size + _LINE, dtype=kind)
    start = -room.ctypes.data % _LINE
    return room[start : start + size]
