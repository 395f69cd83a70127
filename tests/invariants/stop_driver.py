"""Runs a tiny stage in one of two processes that have to stop together, and prints why and after which step.

python stop_driver.py BASE_FOLDER OUT patience|refine-signal|warmup-signal
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from prorank.training.warmup.loop import warmup
from prorank.training.warmup.prompts import PromptSampler
from testkit import refine as refine_parts
from testkit import warmup as warmup_parts


def interrupting(draw: Callable[..., Any], at: int) -> Callable[..., Any]:
    """Ctrl-C reaches the second process alone, while it draws for its second step."""

    def drawing(number: int, *arguments: Any, **options: Any) -> Any:
        if number == at and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGINT)
        return draw(number, *arguments, **options)

    return drawing


def run(base: Path, out: Path, mode: str) -> Any:
    if mode == "warmup-signal":
        loaded, encoder = warmup_parts.load_tiny(base)
        settings = warmup_parts.config(steps=6, refill_rounds=0)
        sampler = PromptSampler(warmup_parts.collection(), settings)
        sampler.draw = interrupting(sampler.draw, at=5)  # type: ignore[method-assign]
        return warmup(loaded, encoder, sampler, settings, out, base_name="tiny", device="cpu", progress=False)
    settings = refine_parts.refine_config(steps=6, eval_every=1, patience=2 if mode == "patience" else 0)
    scores = iter(range(100, 0, -1))  # worse at every evaluation
    if mode == "refine-signal":
        real = refine_parts.Mixture.draw
        refine_parts.Mixture.draw = lambda self, *a: interrupting(real.__get__(self), at=5)(*a)  # type: ignore[method-assign]
    return refine_parts.train(base, out, settings, on_eval=lambda _: {"nDCG@10": float(next(scores))})


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        result = run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    except KeyboardInterrupt as reason:
        print(f"interrupted: {reason}")
    else:
        print(f"{result.stopped} after {result.steps}")
