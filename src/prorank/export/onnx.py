"""A checkpoint as an ONNX graph: the same graph as for OpenVINO, in 32 bits or with int8 weights."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from prorank._optional import require
from prorank.backends.graph import INPUTS, OUTPUTS
from prorank.backends.onnx import GRAPH
from prorank.export.label_graph import LabelGraph

__all__ = ["write_onnx"]

_OPSET = 18


def write_onnx(model: Any, label_ids: tuple[int, int], folder: Path, *, weights: str = "float32") -> Path:
    """Write ``model.onnx`` into a folder.

    Args:
        model: float32, on the CPU.
        weights: ``float32``, or ``int8`` (a scale an output channel; products alone, not the embeddings).

    Raises:
        ValueError: the architecture cannot be exported, or is larger than one ONNX file may be (2 GB).
        ImportError: onnx (and for int8 onnxruntime) is not installed.
    """
    require("onnx", extra="onnx")
    graph = LabelGraph(model, label_ids).eval()
    if sum(p.numel() for p in graph.parameters()) * 4 > 1_900_000_000:
        raise ValueError("export: more than 1.9 GB of float32 weights do not go into one ONNX file; use openvino")
    with tempfile.TemporaryDirectory(prefix="prorank-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of Python numbers that are constants here
        path = folder / GRAPH if weights == "float32" else Path(scratch) / GRAPH
        with torch.inference_mode(False), torch.no_grad():
            torch.onnx.export(
                graph,
                tuple(graph.example().values()),
                str(path),
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                dynamic_axes={"ids": {0: "n", 1: "width"}, "last": {0: "n"}, "past": {3: "length"}},
                opset_version=_OPSET,
                dynamo=False,
            )
        if weights == "int8":
            quantization = require("onnxruntime", extra="onnx").quantization
            quantization.quantize_dynamic(
                path,
                folder / GRAPH,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul"],
            )
    return folder / GRAPH
