"""Levels of instructions: what a processor has, and what the environment leaves of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import prorank.backends.openvino as openvino_backend
import prorank.backends.processor as processor
from prorank.backends.devices import pick_dtype
from prorank.backends.processor import LEVELS, level, reaches

ALL = frozenset(flag for one in LEVELS for flag in one.needs)
ZEN4 = ALL - {"amx_tile", "amx_int8", "amx_bf16"}
CASCADE_LAKE = ZEN4 - {"avx512_bf16"}
HASWELL = frozenset({"avx2", "fma"})
DOUBLE = SimpleNamespace(get_property=lambda *_: ["FP32", "INT8", "BF16"])
"""OpenVINO's list of what the processor can do, which is the same whatever oneDNN may use."""


@pytest.mark.parametrize(
    ("flags", "limit", "found"),
    [
        (ALL, "", "amx"),
        (ALL, "DEFAULT", "amx"),
        (ALL, "AVX512_CORE_AMX", "amx"),
        (ALL, "avx512_core_fp16", "avx512_bf16"),
        (ALL, "AVX512_CORE_BF16", "avx512_bf16"),
        (ALL, "AVX512_CORE_VNNI", "avx512_vnni"),
        (ALL, "AVX512_CORE", "avx512"),
        (ALL, "AVX2_VNNI", "avx2"),
        (ALL, "AVX2", "avx2"),
        (ALL, "SSE41", ""),
        (ZEN4, "", "avx512_bf16"),
        (ZEN4, "AVX512_CORE_AMX", "avx512_bf16"),
        (CASCADE_LAKE, "", "avx512_vnni"),
        (HASWELL, "", "avx2"),
        (HASWELL, "AVX512_CORE", "avx2"),
        (frozenset({"sse4_2"}), "", ""),
        (frozenset(), "AVX2", None),
    ],
)
def test_level(flags: frozenset[str], limit: str, found: str | None) -> None:
    assert level(flags, {"ONEDNN_MAX_CPU_ISA": limit} if limit else {}) == found


def test_the_older_name_of_the_variable_counts_too() -> None:
    assert level(ALL, {"DNNL_MAX_CPU_ISA": "AVX2"}) == "avx2"


def test_reaches() -> None:
    assert reaches("avx512", CASCADE_LAKE, {})
    assert not reaches("avx512_bf16", CASCADE_LAKE, {})
    assert not reaches("avx512", ALL, {"ONEDNN_MAX_CPU_ISA": "AVX2"})
    assert reaches("amx", frozenset(), {}), "not known: the engine's own word counts"


def test_flags_are_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fma avx2\n\nprocessor\t: 1\n", "utf-8")
    monkeypatch.setattr(processor, "Path", lambda _name: file)
    assert processor.processor_features() == HASWELL
    assert processor.processor_name() == "A Processor"


@pytest.mark.parametrize(
    ("flags", "limit", "precision", "hint", "group"),
    [
        (ALL, "", "int8", "bf16", "64"),
        (ZEN4, "", "int8", "bf16", "64"),
        (CASCADE_LAKE, "", "int8", "f32", "64"),
        (ALL, "AVX512_CORE_VNNI", "int8", "f32", "64"),
        (ALL, "AVX2", "int8", "f32", "0"),
        (HASWELL, "", "int8", "f32", "0"),
        (HASWELL, "", "bfloat16", "bf16", "0"),
        (ALL, "", "float32", "f32", "0"),
    ],
)
def test_openvino_is_asked_for_what_it_can_run(
    monkeypatch: pytest.MonkeyPatch, flags: frozenset[str], limit: str, precision: str, hint: str, group: str
) -> None:
    monkeypatch.setattr(processor, "processor_features", lambda: flags)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    settings = openvino_backend._settings(DOUBLE, precision, None, 2)
    assert settings["INFERENCE_PRECISION_HINT"] == hint
    assert settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == group
    cautious = openvino_backend._settings(DOUBLE, precision, None, 1, caution=2)
    assert cautious["INFERENCE_PRECISION_HINT"] == "f32"
    assert cautious["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == "0"


def test_bfloat16_has_one_stream_on_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backend, "processor_features", lambda: ALL)
    assert not openvino_backend._survives_streams("bfloat16")
    assert openvino_backend._survives_streams("int8")
    monkeypatch.setattr(openvino_backend, "processor_features", lambda: ZEN4)
    assert openvino_backend._survives_streams("bfloat16")


@pytest.mark.parametrize(
    ("flags", "limit", "wanted"),
    [
        (ALL, "", torch.bfloat16),
        (ALL, "AVX512_CORE_VNNI", torch.float32),
        (CASCADE_LAKE, "", torch.float32),
        (HASWELL, "", torch.float32),
    ],
)
def test_auto_is_bfloat16_only_where_it_is_multiplied(
    monkeypatch: pytest.MonkeyPatch, flags: frozenset[str], limit: str, wanted: torch.dtype
) -> None:
    monkeypatch.setattr(processor, "processor_features", lambda: flags)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: "avx512_bf16" in flags)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: "amx_tile" in flags)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert pick_dtype("auto", torch.device("cpu")) is wanted
