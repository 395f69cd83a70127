"""The one table of tolerances: which row holds where, and that what is promised is what is tested."""

from __future__ import annotations

from pathlib import Path

import pytest

import prorank.backends.processor as processor
from prorank.backends.processor import LEVELS
from prorank.backends.tolerances import COMPANY, company_limit

REPO = Path(__file__).resolve().parents[3]
AMX = frozenset(flag for one in LEVELS for flag in one.needs)


@pytest.mark.parametrize(
    ("flags", "limit", "backend", "wanted"),
    [
        (AMX, "", "native-cpu-int8", 0.0),
        (AMX, "", "torch-cpu-float32", 1e-4),
        (AMX, "", "torch-cpu-bfloat16", 0.2),
        (AMX, "AVX512_CORE_BF16", "torch-cpu-bfloat16", 0.05),
        (AMX - {"amx_tile"}, "", "torch-cpu-bfloat16", 0.05),
        (frozenset(), "", "torch-cpu-bfloat16", 0.2),
    ],
)
def test_the_row_of_this_processor(
    monkeypatch: pytest.MonkeyPatch, flags: frozenset[str], limit: str, backend: str, wanted: float
) -> None:
    monkeypatch.setattr(processor, "processor_features", lambda: flags)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert company_limit(backend) == wanted


def test_an_engine_without_a_figure_promises_nothing() -> None:
    with pytest.raises(KeyError, match="torch-cuda-bfloat16"):
        company_limit("torch-cuda-bfloat16")


def test_every_limit_has_a_source_and_the_readme_names_them() -> None:
    assert all(row.source for row in COMPANY)
    assert COMPANY[0].backend == "native-cpu-int8", "bit equality is what we lead with"
    readme = (REPO / "README.md").read_text("utf-8").replace("\n", " ")
    for row in COMPANY:
        if row.backend.startswith("torch"):
            assert f"{row.limit:g}".replace("0.0001", "1e-4") in readme
