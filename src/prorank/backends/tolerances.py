"""How closely each engine keeps a score: the one table that tests, documentation and benchmarks read.

A margin must not depend on its company: the batch, the order and the padding that a document is scored with, and
whether its prefix is shared. Our own engine keeps it to the last bit. Elsewhere libraries choose the order of their
sums by the shape of a batch, and what that moves depends on the precision and on the processor. No limit is raised
without a figure behind it.
"""

from __future__ import annotations

from typing import NamedTuple

from prorank.backends.processor import level, reaches

__all__ = ["COMPANY", "FIDELITY", "Company", "Fidelity", "company_limit", "table"]

EXACT = 1e-4
_TINY = "tiny random models, Xeon with AVX-512 and VNNI, at this level and at AVX2's"
_TIPS = "a rounding that tips over moves more, and no other processor's figure is kept"
_BASE = "SmolLM2-135M, 40 documents, Xeon with AVX-512 and VNNI"


class Company(NamedTuple):
    """By how much a margin may move with its company."""

    backend: str
    """``name`` of the backend."""
    level: str
    """Processors: of this level (:data:`prorank.backends.processor.LEVELS`) and above; ``""``: all."""
    limit: float
    """Largest absolute difference; 0: the same bits."""
    source: str
    """The figure behind it."""


COMPANY = (
    Company("native-cpu-int8", "", 0.0, "the same bits, by the order of its sums"),
    Company("torch-cpu-float32", "", EXACT, f"1e-5 measured ({_BASE})"),
    Company(
        "torch-cpu-bfloat16", "", 0.2,
        f"0.064 in batches of another size, 0.098 without the shared prefix ({_BASE}, 2 threads; bfloat16 is imitated "
        "there, which dtype auto never chooses; with 1 thread 0)",
    ),
    Company("torch-cpu-bfloat16", "avx512_bf16", 0.05, "kept by the tests on a 2-core AMD EPYC with AVX-512 and BF16"),
    Company(
        "torch-cpu-bfloat16", "amx", 0.2,
        "0.11 measured (SmolLM2-135M, 2-core Xeon with AMX: 20 of 40 documents beyond 0.05); 0.18 (random weights of "
        "its sizes, 16-core Xeon with AMX)",
    ),
    Company("openvino-cpu-float32", "", EXACT, f"8e-6 measured ({_BASE})"),
    Company("openvino-cpu-bfloat16", "", 0.1, f"4e-6 measured ({_TINY}, where bfloat16 is imitated); {_TIPS}"),
    Company("openvino-cpu-int8", "", 0.2, f"3e-6 measured ({_TINY}); {_TIPS}"),
    Company("onnx-cpu-float32", "", EXACT, f"0 measured ({_TINY})"),
    Company("seq-cls-cpu-float32", "", EXACT, "kept by the tests, alone and padded (tiny random models)"),
    Company("onnx-cpu-int8", "", 0.2, f"0 measured ({_TINY}); {_TIPS}"),
)  # fmt: skip
"""Of two rows of a backend the later one holds where the processor reaches its level."""


class Fidelity(NamedTuple):
    """How far margins may be from PyTorch's in float32, in units of their standard deviation (at least 1)."""

    typical: float
    """Root mean square of the differences."""
    largest: float
    """Of the first five documents of the tests: of few random margins in 16 bits a single one moves by a fifth."""


FIDELITY = {
    "torch-cpu-float32": Fidelity(1e-4, 1e-4),
    "torch-cpu-bfloat16": Fidelity(0.1, 0.25),
    "openvino-cpu-float32": Fidelity(1e-4, 1e-4),
    "openvino-cpu-bfloat16": Fidelity(0.1, 0.25),
    "openvino-cpu-int8": Fidelity(0.2, 0.3),
    "onnx-cpu-float32": Fidelity(1e-4, 1e-4),
    "seq-cls-cpu-float32": Fidelity(1e-4, 1e-4),
    "onnx-cpu-int8": Fidelity(0.2, 0.3),
}
"""By backend, for the tests' tiny random models, whose margins spread over 2 to 3."""


def company_limit(backend: str) -> float:
    """What a backend keeps on this processor, at the level that the environment leaves.

    Raises:
        KeyError: no figure for this backend.
    """
    rows = [row for row in COMPANY if row.backend == backend and (not row.level or _reached(row.level))]
    if not rows:
        raise KeyError(f"no tolerance for {backend}")
    return rows[-1].limit


def _reached(name: str) -> bool:
    """Where the level is not known (no Linux on x86) there is no figure but the others'."""
    return level() is not None and reaches(name)


def table() -> list[str]:
    """The lines of a Markdown table."""
    rows = ["| engine | processors | a margin moves by at most | figure |", "|---|---|---:|---|"]
    for row in COMPANY:
        above = any(other.backend == row.backend and other.level for other in COMPANY)
        kind = f"`{row.level}` and above" if row.level else ("others" if above else "all")
        rows.append(
            f"| {row.backend} | {kind} | {f'{row.limit:g}' if row.limit else '0, bit for bit'} | {row.source} |"
        )
    return rows
