"""Where PyTorch computes, and in which precision."""

from __future__ import annotations

import torch

from prorank.backends.processor import reaches

__all__ = ["pick_device", "pick_dtype"]


def pick_device(device: str | None = None) -> torch.device:
    """The device asked for, else CUDA, else MPS, else the CPU.

    Raises:
        ValueError: the device asked for is not there.
    """
    if device in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(str(device))
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {device!r} is not available here: {str(error).splitlines()[0]}") from error
    return chosen


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The precision asked for; ``auto`` is bfloat16 where the hardware multiplies it, else float32.

    On a CPU that is AVX-512 with BF16 or AMX (or Arm's), as far as ``ONEDNN_MAX_CPU_ISA`` allows: where bfloat16 has to
    be imitated it is slower than float32, and less exact.

    Raises:
        ValueError: no such precision.
    """
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in (None, "auto"):
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.bfloat16 if device.type == "cpu" and _cpu_multiplies_bf16() else torch.float32
    if dtype not in names:
        raise ValueError(f"dtype must be auto, {', '.join(names)}; got {dtype!r}")
    return names[str(dtype)]


def _cpu_multiplies_bf16() -> bool:
    """Whether the processor does and oneDNN may use it: elsewhere bfloat16 is slower than float32."""
    if not reaches("avx512_bf16"):
        return False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
