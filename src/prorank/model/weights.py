"""A base's weights without PyTorch: from a GGUF file or a folder of safetensors, under transformers' names, in float32.

A tensor is read when it is asked for, by rows where they are many, so that a model never lies in memory as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prorank.backends.mapped import map_tensors
from prorank.model.architecture import Architecture, architecture_of_config, architecture_of_gguf
from prorank.model.built_in import BaseError
from prorank.model.gguf_file import GgufFile

__all__ = ["Array", "FolderWeights", "GgufWeights", "Weights"]

Array = npt.NDArray[np.float32]


class Weights(Protocol):
    """Weights by transformers' names, such as ``model.layers.3.mlp.up_proj.weight``."""

    @property
    def architecture(self) -> Architecture:
        """Sizes of the model."""
        ...

    def shape(self, name: str) -> tuple[int, ...] | None:
        """A tensor's shape, or None where there is none of this name."""
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Its rows from ``start`` to before ``stop``, float32."""
        ...


class FolderWeights:
    """``config.json`` and ``*.safetensors`` of a folder.

    Raises:
        BaseError: something is missing, damaged, or of an architecture that our engine does not know.
    """

    def __init__(self, folder: Path) -> None:
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
        except OSError as error:
            raise BaseError(f"model {folder}: config.json: {error.strerror}") from error
        except ValueError as error:
            raise BaseError(f"model {folder}: config.json is not JSON: {error}") from error
        self.architecture = architecture_of_config(config)
        files = sorted(folder.glob("model*.safetensors"))
        if not files:
            raise BaseError(f"model {folder}: no model*.safetensors in this folder")
        self._tensors: dict[str, npt.NDArray[Any]] = {}
        for file in files:
            try:
                self._tensors |= map_tensors(file)[0]
            except ValueError as error:
                raise BaseError(str(error)) from error

    def shape(self, name: str) -> tuple[int, ...] | None:
        """See :class:`Weights`."""
        return self._tensors[name].shape if name in self._tensors else None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """See :class:`Weights`."""
        if name not in self._tensors:
            raise BaseError(f"weights: {name} is missing")
        part = self._tensors[name][start:stop]
        if part.dtype == np.uint16:  # bfloat16
            return (part.astype(np.uint32) << 16).view(np.float32)
        return part.astype(np.float32)


_IN_GGUF = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_AROUND = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


class GgufWeights:
    """A GGUF file's weights.

    Raises:
        BaseError: the file is damaged, or of an architecture that our engine does not know.
    """

    def __init__(self, path: Path) -> None:
        self.file = GgufFile(path)
        self.architecture = architecture_of_gguf(self.file.metadata, self.file.names)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The file's keys and values."""
        return self.file.metadata

    def shape(self, name: str) -> tuple[int, ...] | None:
        """See :class:`Weights`."""
        there = _gguf_name(name)
        return self.file.shape(there) if there is not None and there in self.file.names else None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """See :class:`Weights`."""
        there = _gguf_name(name)
        if there is None or there not in self.file.names:
            raise BaseError(f"{self.file.path}: {there} is missing")
        found = self.architecture
        turned = found.kind in ("llama", "mistral")  # whose heads llama.cpp stores in another order of rows
        if turned and (".q_proj." in name or ".k_proj." in name):
            heads = found.heads if ".q_proj." in name else found.key_heads
            return _turned_back(self.file.read(there), heads)[start:stop]
        return self.file.read(there, start, stop)


def _gguf_name(name: str) -> str | None:
    if name in _AROUND:
        return _AROUND[name]
    _, _, rest = name.partition("model.layers.")
    number, _, part = rest.partition(".")
    part, _, ending = part.rpartition(".")
    return f"blk.{number}.{_IN_GGUF[part]}.{ending}" if part in _IN_GGUF else None


def _turned_back(rows: Array, heads: int) -> Array:
    """Rows of queries or keys in transformers' order: row i of a head turns with row i + size / 2, and not with its
    neighbour."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)
