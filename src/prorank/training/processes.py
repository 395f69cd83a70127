"""Training in several processes, each with a whole copy of the model: which one am I, and what the launcher asked for.

accelerate (or torchrun) starts the processes; gradients are summed by hand once a step, so that processes may do
different numbers of forward passes and the losses are those of one process.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["is_first", "open_accelerator"]

_SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron",
}


def is_first() -> bool:
    """Whether this process writes, measures and reports; true where there is only one."""
    return int(os.environ.get("RANK", "0")) == 0


def open_accelerator(device: str | None) -> Any:
    """accelerate's view of the processes.

    Raises:
        ValueError: the launcher was told to shard the model.
    """
    for variable, name in _SHARDED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise ValueError(
                f"accelerate: {name} is not supported; every process holds a whole model (DDP): launch without it "
                "(accelerate launch --multi_gpu, or --cpu)"
            )
    from accelerate import Accelerator

    return Accelerator(cpu=device == "cpu")
