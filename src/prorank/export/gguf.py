"""A merged model as a GGUF file, for llama.cpp and everything built on it.

Names, shapes and keys follow llama.cpp's own converter: weights under ``blk.N``, norms and biases in float32, and, for
Llama, the rows of the query and key matrices in the order of the paired rotation that llama.cpp applies there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gguf
import numpy as np
import numpy.typing as npt
import torch

from prorank.export.gguf_tokenizer import copy_tokenizer, write_tokenizer
from prorank.files import atomic_file

__all__ = ["ARCHITECTURES", "QUANTISATIONS", "Quantisation", "write_gguf"]

Quantisation = Literal["f32", "f16", "q8_0"]
QUANTISATIONS: tuple[Quantisation, ...] = ("f32", "f16", "q8_0")

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
"""transformers' model_type -> the architecture's name in GGUF."""

_TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_LARGEST = {
    gguf.GGMLQuantizationType.F16: 65504.0,
    gguf.GGMLQuantizationType.Q8_0: 65504.0 * 127,  # a block's scale is a float16
}


class _Tensor(NamedTuple):
    name: str
    values: torch.Tensor
    type: gguf.GGMLQuantizationType


def write_gguf(
    model: Any, tokenizer: Any, out: Path | str, *, quantisation: Quantisation, source: Path | str | None = None
) -> Path:
    """Write a model and its tokenizer into one file, atomically.

    Args:
        model: a transformers causal LM, Llama, Qwen2 or Qwen3, adapters merged.
        tokenizer: its tokenizer, with a ``backend_tokenizer``.
        out: the file to write.
        quantisation: of the matrices: ``f32``, ``f16``, or ``q8_0`` (8 bits and a float16 scale per 32 weights; a
            matrix whose rows are no multiple of 32 stays f16).
        source: the GGUF file that the model was made from: its tokenizer is copied as it is. Default: written from
            ``tokenizer``.

    Returns:
        ``out``.

    Raises:
        ValueError: the architecture, a setting of it, or a weight does not fit the format; or the source's tokens are
            not the tokenizer's.
    """
    out = Path(out)
    if quantisation not in QUANTISATIONS:
        raise ValueError(f"quantisation must be one of {', '.join(QUANTISATIONS)}, got {quantisation!r}")
    if not out.parent.is_dir():
        raise ValueError(f"out {out}: there is no folder {out.parent}")
    config = model.config.get_text_config()
    _check_architecture(model, config)
    tensors = list(_tensors(model, config, quantisation))
    with atomic_file(out) as aside:
        writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config.model_type]])
        writer.add_name(out.stem)
        writer.add_file_type(int(_FILE_TYPES[quantisation]))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_sizes(writer, config)
        if source is not None:
            copy_tokenizer(writer, Path(source), tokenizer, config.vocab_size)
        else:
            write_tokenizer(writer, tokenizer, config)
        for tensor in tensors:
            _announce(writer, tensor)
        try:
            writer.write_header_to_file(aside)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in tensors:  # one at a time: the converted weights are never all in memory
                writer.write_tensor_data(_converted(tensor))
        finally:
            writer.close()
    return out


def _check_architecture(model: Any, config: Any) -> None:
    kind = config.model_type
    if hasattr(model, "peft_config"):
        raise ValueError("model: its adapter is not merged; merge it before the export")
    if kind not in ARCHITECTURES:
        raise ValueError(f"architecture {kind!r} cannot be written as GGUF here; expected {', '.join(ARCHITECTURES)}")
    rope = dict(config.rope_parameters or {})
    scaled = ("default", "linear", "llama3") if kind == "llama" else ("default",)
    if rope.get("rope_type", "default") not in scaled:
        raise ValueError(f"rope_type {rope['rope_type']!r} of {kind} cannot be written; expected {', '.join(scaled)}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"partial_rotary_factor {rope['partial_rotary_factor']} cannot be written; expected 1")
    if config.hidden_act != "silu":
        raise ValueError(f"hidden_act {config.hidden_act!r} cannot be written; expected 'silu'")
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        raise ValueError(f"layer_types: {kind} is written with full attention only, and this model has sliding windows")


def _add_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    head = _head_size(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _tensors(model: Any, config: Any, quantisation: Quantisation) -> Iterator[_Tensor]:
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    yield from _rope_factors(model, config)
    embedding = model.get_input_embeddings().weight
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and weight.data_ptr() == embedding.data_ptr():
            continue  # tied: a file without output.weight uses the embedding
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ValueError(f"weight {name}: {config.model_type} has no such tensor in GGUF")
        if not torch.isfinite(weight).all():
            raise ValueError(f"weight {name} holds NaN or infinity")
        kind = _TYPES[quantisation] if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
        if kind == gguf.GGMLQuantizationType.Q8_0 and weight.shape[-1] % 32:
            kind = gguf.GGMLQuantizationType.F16
        largest = _LARGEST.get(kind, math.inf)
        if float(weight.abs().max()) > largest:
            raise ValueError(f"weight {name} exceeds {largest:g}, the largest of {kind.name.lower()}; use f32")
        if config.model_type == "llama" and ".q_proj." in name:
            weight = _paired(weight, config.num_attention_heads)
        elif config.model_type == "llama" and ".k_proj." in name:
            weight = _paired(weight, config.num_key_value_heads)
        yield _Tensor(target, weight, kind)


def _paired(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key matrix (or bias) from transformers' order, where row i of a head rotates with row
    i + half, to llama.cpp's for Llama, where rows 2i and 2i + 1 do: ``(heads * size, ...)`` -> the same shape."""
    paired: torch.Tensor = rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
    return paired


def _rope_factors(model: Any, config: Any) -> Iterator[_Tensor]:
    """By what llama.cpp divides each pair's frequency; nothing where the rotation is unscaled."""
    if config.rope_parameters.get("rope_type", "default") == "default":
        return
    size = _head_size(config)
    frequencies = model.base_model.rotary_emb.inv_freq
    if frequencies.dtype != torch.float32:
        raise ValueError(f"model: its rotation frequencies are in {frequencies.dtype}; load it in float32")
    plain = config.rope_parameters["rope_theta"] ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    factors = plain / frequencies.double().cpu()
    yield _Tensor("rope_freqs.weight", factors.float(), gguf.GGMLQuantizationType.F32)


def _announce(writer: gguf.GGUFWriter, tensor: _Tensor) -> None:
    shape = tuple(tensor.values.shape)
    kind: Any = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}.get(tensor.type)
    if kind is None:
        kind, shape = np.uint8, gguf.quant_shape_to_byte_shape(shape, tensor.type)
    dtype = np.dtype(kind)
    writer.add_tensor_info(tensor.name, shape, dtype, int(np.prod(shape)) * dtype.itemsize, raw_dtype=tensor.type)


def _converted(tensor: _Tensor) -> npt.NDArray[Any]:
    values = tensor.values.detach().to("cpu", torch.float32).contiguous().numpy()
    return np.asarray(gguf.quants.quantize(values, tensor.type))
