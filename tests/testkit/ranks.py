"""Several processes of one training run, as a launcher starts them, without importing PyTorch in each of them anew."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

_PRELOADED = [
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "testkit.refine",
    "testkit.warmup",
    "prorank.training.refine.loop",
]


def together(count: int, work: Callable[..., Any], *arguments: Any, timeout: float = 240) -> list[Any]:
    """``work(*arguments)`` in ``count`` processes, joined by gloo; what each returned, in the order of ranks.

    Args:
        work: a function of a module, as are its arguments' types.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pipes, processes = [], []
    for rank in range(count):
        shared = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        environment = {**os.environ, **shared, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_one, args=(sender, environment if count > 1 else dict(os.environ), work, arguments), daemon=True
        )
        process.start()
        pipes.append(receiver)
        processes.append(process)
    try:
        found = []
        for receiver in pipes:
            assert receiver.poll(timeout), "no answer in time"
            ok, value = receiver.recv()
            assert ok, value
            found.append(value)
        return found
    finally:
        for process in processes:
            process.join(20)
            process.kill()


def _one(sender: Any, environment: dict[str, str], work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        sender.send((True, work(*arguments)))
    except BaseException:
        sender.send((False, traceback.format_exc()))
