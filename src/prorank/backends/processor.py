"""What this processor can multiply, and how far a user has lowered it.

PyTorch, oneDNN and OpenVINO choose their instructions when they start: ``ATEN_CPU_CAPABILITY`` lowers PyTorch's own
loops, ``ONEDNN_MAX_CPU_ISA`` the products of PyTorch and OpenVINO, ``PRORANK_NATIVE_ISA`` our own engine. ONNX Runtime
and llama.cpp have no such variable. OpenVINO lists what the processor has even where oneDNN may not use it, so whoever
asks for a precision asks here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["LEVELS", "Level", "cpuinfo", "level", "processor_features", "processor_name", "reaches"]


class Level(NamedTuple):
    """A set of instructions, the ones before it included."""

    name: str
    needs: tuple[str, ...]
    """Flags of ``/proc/cpuinfo``, beyond those of the level before."""
    torch: str
    """Value of ``ATEN_CPU_CAPABILITY`` that lowers PyTorch to it."""
    onednn: str
    """Value of ``ONEDNN_MAX_CPU_ISA`` that lowers oneDNN to it."""
    native: str
    """Value of ``PRORANK_NATIVE_ISA`` that lowers our own engine to it, or to the next one that it is written for."""

    @property
    def environment(self) -> dict[str, str]:
        """What lowers a process that is started with it."""
        return {
            "ATEN_CPU_CAPABILITY": self.torch,
            "ONEDNN_MAX_CPU_ISA": self.onednn,
            "PRORANK_NATIVE_ISA": self.native,
        }


LEVELS = (
    Level("avx2", ("avx2", "fma"), "avx2", "AVX2", "avx2"),
    Level("avx512", ("avx512f", "avx512bw", "avx512vl", "avx512dq"), "avx512", "AVX512_CORE", "avx2"),
    Level("avx512_vnni", ("avx512_vnni",), "avx512", "AVX512_CORE_VNNI", "avx512vnni"),
    Level("avx512_bf16", ("avx512_bf16",), "avx512", "AVX512_CORE_BF16", "avx512bf16"),
    Level("amx", ("amx_tile", "amx_int8", "amx_bf16"), "avx512", "AVX512_CORE_AMX", "avx512bf16"),
)
"""From the least to the most."""

_NAMES = tuple(one.name for one in LEVELS)
_BELOW = ("SSE41", "AVX")
_ALSO = {"AVX2_VNNI": "avx2", "AVX2_VNNI_2": "avx2", "AVX512_CORE_FP16": "avx512_bf16"}
"""oneDNN's names between ours; those that are not listed lie above all of ours, or are none and mean no limit."""


def level(features: frozenset[str] | None = None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The highest level that the processor has and the environment allows.

    Args:
        features: flags of the processor; None: this one's.

    Returns:
        A name of :data:`LEVELS`; ``""``: less than the least; None: not known (no Linux on x86).
    """
    flags = processor_features() if features is None else features
    if not flags:
        return None
    held = 0
    while held < len(LEVELS) and flags.issuperset(LEVELS[held].needs):
        held += 1
    allowed = min(held, _allowed(environment))
    return _NAMES[allowed - 1] if allowed else ""


def reaches(wanted: str, features: frozenset[str] | None = None, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the level here is ``wanted`` or higher; where it is not known, True: the engine's own word counts."""
    found = level(features, environment)
    return found is None or (found != "" and _NAMES.index(found) >= _NAMES.index(wanted))


def processor_features() -> frozenset[str]:
    """What Linux says this x86 processor can do, such as ``avx512_vnni``; empty elsewhere."""
    return frozenset(cpuinfo("flags").split())


def processor_name() -> str:
    """Such as ``AMD EPYC 9R14``; empty where Linux does not tell."""
    return cpuinfo("model name").strip()


def _allowed(environment: Mapping[str, str]) -> int:
    """How many levels oneDNN may use."""
    limit = (environment.get("ONEDNN_MAX_CPU_ISA") or environment.get("DNNL_MAX_CPU_ISA") or "").strip().upper()
    if limit in _BELOW:
        return 0
    by_limit = {one.onednn: one.name for one in LEVELS} | _ALSO
    return _NAMES.index(by_limit[limit]) + 1 if limit in by_limit else len(LEVELS)


def cpuinfo(name: str) -> str:
    """The first value of a field of Linux's ``/proc/cpuinfo``; empty where there is none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.is_file() else []
    return next((line.partition(":")[2] for line in lines if line.split(":")[0].strip() == name), "")
