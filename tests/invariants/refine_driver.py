"""Runs a tiny stage 2 in a process of its own: for tests that kill one.

python refine_driver.py BASE_FOLDER OUT '{"steps": 6}' [KILL_AT]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import prorank.training.refine.loop as loop
from testkit.refine import refine_config, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 4:
        kill_at, real = int(sys.argv[4]), loop.train_step

        def dying(*arguments):
            if arguments[-1].step + 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        loop.train_step = dying
    train(Path(sys.argv[1]), Path(sys.argv[2]), refine_config(**json.loads(sys.argv[3])))
