"""OpenVINO backend: int8 (VNNI), bfloat16 or float32 on a CPU, from a folder that ``prorank export`` wrote."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.backends.cores import available_cores
from prorank.backends.graph import OUTPUTS, Array, GraphBackend
from prorank.backends.mapped import give_back
from prorank.cache import cache_dir

__all__ = ["GRAPH", "OpenVinoBackend"]

GRAPH = "openvino_model.xml"
_GROUP = 64
"""Activations get a scale for so many inputs of a row. Without a number that divides the inputs OpenVINO 2026.4 does
not quantise at all: "one scale a row" ran in float32, at half the speed. 32 is about a fifth slower, 192 a twelfth
faster."""
_MOST_PASSES = 4
"""Batches at a time. Cores do not wait for one another then, but each pass has a graph of its own in memory: 50 MB."""
_SHORT = 256
"""Tokens of a prompt up to which every core has a pass of its own. Passes for longer ones have two cores or more: their
memory grows with the longest document, and they gain less (on 2 cores 1.1 times the speed, not 1.2)."""


class OpenVinoBackend(GraphBackend):
    """Scores with an exported graph.

    Args:
        folder: holds ``openvino_model.xml`` and ``.bin``.
        label_ids: (irrelevant, relevant) token ids, whose rows are in the folder, in this order.
        precision: ``int8`` (dynamically quantised activations where the weights are int8), ``bfloat16`` or ``float32``.
        threads: of the processor; None: all cores.
        max_length: tokens of the longest prompt; decides how many batches are computed at a time.

    Raises:
        ValueError: the graph is missing or damaged.
        ImportError: OpenVINO is not installed.
    """

    def __init__(
        self, folder: Path, label_ids: tuple[int, int], *, precision: str = "int8", threads: int | None = None,
        max_length: int | None = None,
    ) -> None:  # fmt: skip
        openvino = require("openvino", extra="openvino")
        path = folder / GRAPH
        if not path.is_file():
            raise ValueError(f"{folder}: {GRAPH} is missing; write it with `prorank export --to openvino-int8`")
        core = openvino.Core()
        cores = threads or available_cores()
        self.passes = max(1, min(cores if max_length and max_length <= _SHORT else cores // 2, _MOST_PASSES))
        self.batch_tokens = 128 if self.passes > 1 else 256  # 110 kB are kept for every token of the largest batch
        try:
            compiled = core.compile_model(path, "CPU", _settings(core, precision, threads, self.passes))
        except RuntimeError as error:
            raise ValueError(f"{path}: not a readable OpenVINO graph: {str(error).splitlines()[0]}") from error
        shape = compiled.input("past").get_partial_shape()
        names = set().union(*(one.names for one in compiled.inputs))
        past = [1 if d.is_dynamic else d.get_length() for d in shape]
        super().__init__(folder, names, past, round_to=8)
        self.label_ids = label_ids
        self.name = f"openvino-cpu-{precision}"
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.passes):
            self._idle.put(compiled.create_infer_request())
        self._weights: Path | None = path.with_suffix(".bin")

    def infer(self, inputs: dict[str, npt.NDArray[np.int64] | Array], states: bool) -> tuple[Array, Array | None]:
        """See :class:`GraphBackend`."""
        request = self._idle.get()
        try:
            request.infer(inputs, share_inputs=True)
            weights, self._weights = self._weights, None
            if weights is not None:  # the first time OpenVINO has packed them; what it runs is that copy
                give_back(weights)
            last = np.array(request.get_tensor(OUTPUTS[0]).data, dtype=np.float32)
            return last, np.array(request.get_tensor(OUTPUTS[1]).data, dtype=np.float32) if states else None
        finally:
            self._idle.put(request)


def _settings(core: Any, precision: str, threads: int | None, passes: int) -> dict[str, Any]:
    """Threads are shared between the passes; compiled graphs are kept in our cache, without the weights.

    What int8 leaves over (attention, norms) goes in bfloat16 where the processor has it.
    """
    fast = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT" if passes > 1 else "LATENCY",
        "NUM_STREAMS": str(passes),
        "INFERENCE_PRECISION_HINT": {"int8": fast, "bfloat16": "bf16"}.get(precision, "f32"),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(_GROUP) if precision == "int8" else "0",
        "CACHE_DIR": str(cache_dir("openvino")),
        "CACHE_MODE": "OPTIMIZE_SIZE",  # 3 MB a graph instead of 200; the weights stay in the export's folder
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    return settings
