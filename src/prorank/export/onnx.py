"""A checkpoint as an ONNX graph: the same graph as for OpenVINO, in 32 bits or with int8 weights."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from prorank._optional import require
from prorank.backends.graph import INPUTS, OUTPUTS
from prorank.backends.onnx import GRAPH
from prorank.export.graph import ScoringGraph

__all__ = ["write_graph", "write_onnx"]

_OPSET = 18
_BLOCK = 32
_INT8_ACTIVATIONS = 4  # ONNX Runtime's accuracy_level of that meaning


def write_onnx(model: Any, folder: Path, *, weights: str = "float32") -> Path:
    """Write ``model.onnx`` into a folder.

    Args:
        model: float32, on the CPU.
        weights: ``float32``, or ``int8`` (a scale for each 32 inputs of an output; products alone, not the embeddings).

    Raises:
        ValueError: the architecture cannot be exported, or is larger than one ONNX file may be (2 GB).
        ImportError: onnx (and for int8 onnxruntime) is not installed.
    """
    require("onnx", extra="onnx")
    graph = ScoringGraph(model).eval()
    if sum(p.numel() for p in graph.parameters()) * 4 > 1_900_000_000:
        raise ValueError("export: more than 1.9 GB of float32 weights do not go into one ONNX file; use openvino")
    axes = {"ids": {0: "n", 1: "width"}, "last": {0: "n"}, "past": {3: "length"}}
    return write_graph(graph, tuple(graph.example().values()), INPUTS, OUTPUTS, axes, folder, weights)


def write_graph(
    graph: torch.nn.Module, example: tuple[torch.Tensor, ...], inputs: Sequence[str], outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]], folder: Path, weights: str,
) -> Path:  # fmt: skip
    """Trace a graph and write it, in int8 if asked for.

    Args:
        example: inputs to trace with.
        inputs, outputs: their names.
        axes: of each input, by number, the ones whose length varies, and what they are called.
        weights: ``float32`` or ``int8``.
    """
    with tempfile.TemporaryDirectory(prefix="prorank-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of Python numbers that are constants here
        path = folder / GRAPH if weights == "float32" else Path(scratch) / GRAPH
        with torch.inference_mode(False), torch.no_grad():
            torch.onnx.export(
                graph, example, str(path), input_names=list(inputs), output_names=list(outputs), dynamic_axes=axes,
                opset_version=_OPSET, dynamo=False,
            )  # fmt: skip
        if weights == "int8":
            _quantised(path, folder / GRAPH)
    return folder / GRAPH


def _quantised(source: Path, target: Path) -> None:
    """Weights of the products in int8, a scale for each block; activations by row, as they come.

    ONNX Runtime's other way (``quantize_dynamic``) takes one scale for a whole batch of activations: a score would
    then depend on its neighbours.
    """
    onnx = require("onnx", extra="onnx")
    require("onnx_ir", extra="onnx")
    require("onnxruntime", extra="onnx")
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(source), bits=8, block_size=_BLOCK, is_symmetric=True, accuracy_level=_INT8_ACTIVATIONS
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))
