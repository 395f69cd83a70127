"""ONNX Runtime backend, for where OpenVINO is not: float32, or int8 weights with activations quantised as they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.backends.graph import OUTPUTS, Array, GraphBackend
from prorank.scoring import Capabilities

__all__ = ["GRAPH", "OnnxBackend"]

GRAPH = "model.onnx"


class OnnxBackend(GraphBackend):
    """Scores with an exported graph.

    Args:
        folder: holds ``model.onnx``.
        label_ids: (irrelevant, relevant) token ids, whose rows are in the folder, in this order.
        precision: what the weights are in, for the name.
        threads: of the processor; None: all cores.

    Raises:
        ValueError: the graph is missing or damaged.
        ImportError: ONNX Runtime is not installed.
    """

    def __init__(
        self, folder: Path, label_ids: tuple[int, int], *, precision: str = "float32", threads: int | None = None
    ) -> None:
        runtime = require("onnxruntime", extra="onnx")
        path = folder / GRAPH
        if not path.is_file():
            raise ValueError(f"{folder}: {GRAPH} is missing; write it with `prorank export --to onnx`")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # the arena keeps the largest batch's memory for ever
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common class of their own
            raise ValueError(f"{path}: not a readable ONNX graph: {str(error).splitlines()[0]}") from error
        shapes = {one.name: one.shape for one in self._session.get_inputs()}
        super().__init__(folder, shapes, [d if isinstance(d, int) else 1 for d in shapes["past"]])
        self.label_ids = label_ids
        self.name = f"onnx-cpu-{precision}"
        self.capabilities = Capabilities(shares_prefixes=True)

    def infer(self, inputs: dict[str, npt.NDArray[np.int64] | Array], states: bool) -> tuple[Array, Array | None]:
        """See :class:`GraphBackend`."""
        outputs = self._session.run(list(OUTPUTS) if states else [OUTPUTS[0]], inputs)
        return outputs[0], outputs[1] if states else None
