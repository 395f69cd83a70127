"""Both stages of training in several Ray workers: the same losses as in one process, by accelerate's own means.

    pip install 'prorank[train]' 'ray[train]'
    python examples/ray_trainer.py my_folder /shared/runs/mine
    python examples/ray_trainer.py my_folder /shared/runs/mine 4 gpu      # four workers with a GPU each

The folders are read and written by all workers: on several machines they are on a shared disk. Run it again to resume;
the number of workers may be another one then.
"""

import sys
from pathlib import Path
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def work(settings: dict[str, Any]) -> None:
    """One worker: Ray has joined the processes, and accelerate finds them so."""
    from prorank import TrainRun, train

    report = train(TrainRun(**settings)).report
    if report:  # the first worker's
        print(report)


def fit(settings: dict[str, Any], workers: int = 2, *, gpu: bool = False) -> None:
    """Train with the fields of :class:`prorank.TrainRun` in so many workers."""
    TorchTrainer(
        work,
        train_loop_config=settings,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(name="ray", storage_path=str(Path(settings["out"]).absolute())),
    ).fit()


if __name__ == "__main__":
    data, out, *more = sys.argv[1:]
    folders = {"data": str(Path(data).absolute()), "out": str(Path(out).absolute())}
    fit(folders, int(more[0]) if more else 2, gpu="gpu" in more)
