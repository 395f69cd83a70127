"""A checkpoint as an OpenVINO graph: label logits and keys and values, weights in int8 or 16 bits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from prorank._optional import require
from prorank.backends.graph import OUTPUTS
from prorank.backends.openvino import GRAPH
from prorank.export.graph import ScoringGraph

__all__ = ["write_openvino"]


def write_openvino(model: Any, folder: Path, *, weights: str = "int8") -> list[Path]:
    """Write ``openvino_model.xml`` and ``.bin`` into a folder.

    Args:
        model: float32, on the CPU.
        weights: ``int8`` (symmetric, a scale an output channel), ``float16`` or ``float32``.

    Returns:
        The files written.

    Raises:
        ValueError: the architecture cannot be exported.
        ImportError: OpenVINO (and for int8 NNCF) is not installed.
    """
    openvino = require("openvino", extra="openvino")
    graph = ScoringGraph(model).eval()
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of Python numbers that are constants here
        converted = openvino.convert_model(graph, example_input=graph.example())
    any_size = openvino.PartialShape([-1, -1])
    shapes = {
        "ids": any_size,
        "last": openvino.PartialShape([-1]),
        "past": openvino.PartialShape([2 * graph.layers, 1, graph.heads, -1, graph.size]),
        "hidden": openvino.PartialShape([1]),
        "kept": openvino.PartialShape([1]),
    }
    converted.reshape(shapes)
    for output, name in zip(converted.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    if weights == "int8":
        nncf = require("nncf", extra="openvino")
        converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
    path = folder / GRAPH
    openvino.save_model(converted, path, compress_to_fp16=weights == "float16")
    return [path, path.with_suffix(".bin")]
