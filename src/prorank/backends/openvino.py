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
from prorank.backends.processor import processor_features, reaches
from prorank.cache import cache_dir
from prorank.scoring import Capabilities

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
        caution: for a processor on which it fails otherwise: 1: one batch at a time; 2: float32 but for the weights,
            too.

    Raises:
        ValueError: the graph is missing or damaged.
        ImportError: OpenVINO is not installed.
    """

    def __init__(
        self, folder: Path, label_ids: tuple[int, int], *, precision: str = "int8", threads: int | None = None,
        max_length: int | None = None, caution: int = 0,
    ) -> None:  # fmt: skip
        openvino = require("openvino", extra="openvino")
        path = folder / GRAPH
        if not path.is_file():
            raise ValueError(f"{folder}: {GRAPH} is missing; write it with `prorank export --to openvino-int8`")
        core = openvino.Core()
        cores = threads or available_cores()
        passes = max(1, min(cores if max_length and max_length <= _SHORT else cores // 2, _MOST_PASSES))
        if caution or not _survives_streams(precision):
            passes = 1
        batch_tokens = 128 if passes > 1 else 256  # 110 kB are kept for every token of the largest batch
        try:
            compiled = core.compile_model(path, "CPU", _settings(core, precision, threads, passes, caution))
        except RuntimeError as error:
            raise ValueError(f"{path}: OpenVINO cannot compile it: {_reason(error)}") from error
        shape = compiled.input("past").get_partial_shape()
        names = set().union(*(one.names for one in compiled.inputs))
        past = [1 if d.is_dynamic else d.get_length() for d in shape]
        super().__init__(folder, names, past, round_to=8)
        self.label_ids = label_ids
        self.name = f"openvino-cpu-{precision}"
        self.capabilities = Capabilities(passes=passes, batch_tokens=batch_tokens, shares_prefixes=True)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(passes):
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


def _survives_streams(precision: str) -> bool:
    """Whether several batches at a time are safe.

    OpenVINO 2026.4.1 divides by zero (SIGFPE: the whole process ends) when it compiles a graph for bfloat16 and two
    streams on Intel processors with AMX. One stream works there, and so do two in float32 and in int8.
    """
    return precision != "bfloat16" or "amx_tile" not in processor_features()


def _settings(core: Any, precision: str, threads: int | None, passes: int, caution: int = 0) -> dict[str, Any]:
    """Threads are shared between the passes; compiled graphs are kept in our cache, without the weights.

    What int8 leaves over (attention, norms) goes in bfloat16 where the processor has it, and oneDNN may use it: asked
    for it where ``ONEDNN_MAX_CPU_ISA`` is lower, OpenVINO compiles a graph that it cannot run. Activations are
    quantised where there are products for it: below AVX-512 the first batch fails ("could not create a primitive
    descriptor"), and int8 weights are multiplied in float32.
    """
    fast = reaches("avx512_bf16") and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hint = "bf16" if precision == "bfloat16" or (precision == "int8" and fast) else "f32"
    quantise = precision == "int8" and reaches("avx512")
    if caution > 1:
        hint, quantise = "f32", False
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT" if passes > 1 else "LATENCY",
        "NUM_STREAMS": str(passes),
        "INFERENCE_PRECISION_HINT": hint,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(_GROUP) if quantise else "0",
        "CACHE_DIR": str(cache_dir("openvino")),
        "CACHE_MODE": "OPTIMIZE_SIZE",  # 3 MB a graph instead of 200; the weights stay in the export's folder
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    return settings


def _reason(error: RuntimeError) -> str:
    """What an error says, without the places in OpenVINO's sources that it begins with."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from ")]
    if not reaches("avx2"):  # "bad combination" is all that it says then
        return f"{' '.join(said)} (it needs AVX2 at least; is ONEDNN_MAX_CPU_ISA lower?)"
    return said[0] if said else str(error)
