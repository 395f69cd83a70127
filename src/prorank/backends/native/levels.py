"""Which instruction sets our own engine is written for, and which of them this processor has."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Collection
from typing import NamedTuple

from prorank.backends.processor import cpuinfo

__all__ = ["COMMON", "LEVELS", "VARIABLE", "Level", "available", "chosen_level", "level_flags", "processor_features"]

COMMON = ("-O3", "-ffp-contract=off")
"""Flags of every level. Without the second compilers join some products and sums, each in other places."""

VARIABLE = "PRORANK_NATIVE_ISA"
"""The environment variable that names a level below the best one."""


class Level(NamedTuple):
    """An instruction set (or some together) that ``native.c`` can be compiled for."""

    name: str
    needs: tuple[tuple[str, ...], ...]
    """Features of the processor: all of any one of these rows."""
    flags: tuple[str, ...]
    """For the compiler."""
    wide: tuple[str, ...] = ()
    """For the compiler where the first row is missing."""
    proven: bool = True
    """Whether it has run on such a processor; one that has not is taken only where it is named."""


_X86 = ("avx2", "fma", "f16c")
_AVX2 = ("-DPRORANK_AVX2", "-mavx2", "-mfma", "-mf16c")
_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma", "f16c")
_AVX512_FLAGS = (
    "-DPRORANK_AVX512", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma", "-mf16c",
)  # fmt: skip
_BF16_FLAGS = (*_AVX512_FLAGS, "-DPRORANK_BF16", "-mavx512bf16")

LEVELS: tuple[Level, ...] = (
    Level("avx2", (_X86,), _AVX2),
    Level("avxvnni", ((*_X86, "avx_vnni"), (*_X86, *_AVX512)), (*_AVX2, "-mavxvnni"),
          (*_AVX2, "-mavx512vl", "-mavx512vnni")),
    Level("avx512vnni", (_AVX512,), _AVX512_FLAGS),
    Level("avx512bf16", ((*_AVX512, "avx512_bf16"),), _BF16_FLAGS),
    Level("amx", ((*_AVX512, "avx512_bf16", "amx_tile", "amx_int8"),),
          (*_BF16_FLAGS, "-DPRORANK_AMX", "-mamx-tile", "-mamx-int8"), proven=False),
    Level("neon", (("asimd", "asimddp"),), ("-DPRORANK_NEON", "-mcpu=generic+dotprod")),
    Level("i8mm", (("asimd", "asimddp", "i8mm"),), ("-DPRORANK_NEON", "-DPRORANK_I8MM", "-mcpu=generic+dotprod+i8mm")),
)  # fmt: skip
"""From the slowest to the fastest of a kind of processor."""


def available(features: Collection[str]) -> list[Level]:
    """The levels for a processor with these features, the fastest last."""
    return [level for level in LEVELS if any(set(row) <= set(features) for row in level.needs)]


def chosen_level(features: Collection[str]) -> Level:
    """The fastest proven level, or the one that :data:`VARIABLE` names.

    Raises:
        ValueError: the variable names no level, or one that this processor lacks.
        ImportError: this processor has none.
    """
    found = available(features)
    named = os.environ.get(VARIABLE)
    if named:
        level = next((level for level in LEVELS if level.name == named), None)
        if level is None:
            raise ValueError(f"{VARIABLE}: {named!r} is none of {', '.join(level.name for level in LEVELS)}")
        if level not in found:
            here = ", ".join(level.name for level in found) or "none of our levels"
            raise ValueError(f"{VARIABLE}: this processor has no {_lacks(level, features)} for {named}; it has {here}")
        return level
    proven = [level for level in found if level.proven]
    if not proven:
        kind = platform.machine() or "unknown processor"
        arm = any(name.startswith("asimd") for name in features) or kind.lower() in ("arm64", "aarch64")
        first = next(level for level in LEVELS if level.name == ("neon" if arm else "avx2"))
        lacks = _lacks(first, features)
        raise ImportError(f"native: this processor ({kind}) has no {lacks}; export to openvino-int8, which runs on any")
    return proven[-1]


def level_flags(level: Level, features: Collection[str]) -> tuple[str, ...]:
    """The compiler's flags for a level on a processor with these features."""
    return (*COMMON, *(level.flags if not level.wide or set(level.needs[0]) <= set(features) else level.wide))


def _lacks(level: Level, features: Collection[str]) -> str:
    return next(name for name in level.needs[0] if name not in features)


@functools.cache
def processor_features() -> frozenset[str]:
    """What the system says this processor can do, by Linux's names, such as ``avx512_vnni`` or ``asimddp``; empty where
    it does not say."""
    if flags := cpuinfo("flags") or cpuinfo("Features"):  # x86, ARM
        return frozenset(flags.split())
    if sys.platform == "darwin":
        return _darwin_features()
    if sys.platform == "win32":
        return _windows_features()
    return frozenset()


def _darwin_features() -> frozenset[str]:
    x86 = {name: name.partition("_")[0] for name in ("avx2_0", "fma", "f16c")}
    asked = {**x86, "neon": "asimd", "arm.FEAT_DotProd": "asimddp", "arm.FEAT_I8MM": "i8mm"}
    found = set()
    for key, feature in asked.items():
        command = ["/usr/sbin/sysctl", "-n", f"hw.optional.{key}"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        except OSError:
            continue
        if said.strip() == "1":
            found.add(feature)
    return frozenset(found)


def _windows_features() -> frozenset[str]:
    """Windows tells of AVX2 (PF_AVX2_INSTRUCTIONS_AVAILABLE); every processor that has it has the other two."""
    import ctypes

    known = getattr(ctypes, "windll").kernel32.IsProcessorFeaturePresent(40)  # noqa: B009
    return frozenset(_X86 if known else ())
