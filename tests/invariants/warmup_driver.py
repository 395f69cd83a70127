"""Runs a tiny warmup in a process of its own: for tests that kill one.

python warmup_driver.py BASE_FOLDER OUT '{"steps": 6}' [KILL_AT]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import prorank.training.warmup.loop as loop
from prorank.training.warmup.prompts import PromptSampler
from testkit.warmup import collection, config, load_tiny

if __name__ == "__main__":
    torch.set_num_threads(1)
    base, encoder = load_tiny(Path(sys.argv[1]))
    settings = config(**json.loads(sys.argv[3]))
    if len(sys.argv) > 4:
        kill_at, real = int(sys.argv[4]), loop.train_step

        def dying(*arguments):
            if arguments[-1].step + 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        loop.train_step = dying
    sampler = PromptSampler(collection(), settings)
    loop.warmup(base, encoder, sampler, settings, Path(sys.argv[2]), base_name="tiny", device="cpu", progress=False)
