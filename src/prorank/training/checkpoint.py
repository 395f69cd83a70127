"""Training state on disk: written atomically, without pickle, enough to go on to the very same losses.

A state folder holds ``parameters.safetensors`` (trained parameters), ``optimiser.safetensors`` (moments),
``random.safetensors`` (torch's generators) and ``state.json`` (step, sampler position, running prior, Python's and
numpy's generators, the resolved configuration). It is replaced as a whole or not at all.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from prorank.config import config_dict, first_difference
from prorank.files import atomic_folder, recover_folder, write_atomic
from prorank.training.config import TrainingConfig

__all__ = ["check_output_folder", "check_same_run", "load_state", "read_progress", "save_state"]


def check_output_folder(folder: Path, bytes_needed: int) -> None:
    """Find out before any work whether the folder can be written and the disk has room.

    Raises:
        ValueError: it cannot, or has not; the message names ``--out``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".prorank-probe"
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written: {error.strerror or error}") from error
    free = shutil.disk_usage(folder).free
    if free < bytes_needed:
        raise ValueError(
            f"--out {folder}: the disk has {free / 2**20:.0f} MiB left, and checkpoints need "
            f"{bytes_needed / 2**20:.0f} MiB"
        )


def check_same_run(out: Path, section: str, config: TrainingConfig, base_sha256: str) -> None:
    """A run is resumed by the same configuration only; the resolved one is kept beside it as ``config.json``.

    Args:
        section: ``warmup`` or ``refine``, as in the flags.

    Raises:
        ValueError: the folder holds the state of another run; the message names the flag that differs.
    """
    path = out / "config.json"
    if read_progress(out / "state") is not None and path.is_file():
        found = json.loads(path.read_text("utf-8"))
        if different := first_difference(config, found.get(section, {})):
            name, was, value = different
            raise ValueError(
                f"--{section}.{name}: {out} holds a run with {was!r}, not {value!r}; give the same settings to go on, "
                "or another --out"
            )
        if found.get("base_sha256") != base_sha256:
            raise ValueError(f"--model: {out} holds a run on another base; give another --out")
        return
    write_atomic(path, json.dumps({"base_sha256": base_sha256, section: config_dict(config)}, indent=2) + "\n")


def save_state(
    folder: Path,
    parameters: list[tuple[str, torch.nn.Parameter]],
    optimiser: torch.optim.Optimizer,
    progress: Mapping[str, Any],
) -> None:
    """Write the state; on an error (a full disk) the previous one stays as it is.

    Args:
        progress: JSON data of the loop's own: step, next draw, running values, configuration.
    """
    moments = {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, entry in optimiser.state_dict()["state"].items()
        for name, value in entry.items()
        if isinstance(value, torch.Tensor)
    }
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    kind, keys, *rest = np.random.get_state(legacy=True)
    data = {
        **progress,
        "python_random": random.getstate(),
        "numpy_random": [kind, np.asarray(keys).tolist(), *rest],
    }
    with atomic_folder(folder) as aside:
        save_file({name: p.detach().cpu().contiguous() for name, p in parameters}, aside / "parameters.safetensors")
        save_file(moments or {"empty": torch.zeros(1)}, aside / "optimiser.safetensors")
        save_file(generators, aside / "random.safetensors")
        (aside / "state.json").write_text(json.dumps(data), "utf-8")


def read_progress(folder: Path) -> dict[str, Any] | None:
    """The loop's own part of a state, or None where there is no state.

    Raises:
        ValueError: there is one and it cannot be read.
    """
    recover_folder(folder)
    path = folder / "state.json"
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: damaged training state ({error}); remove {folder} to start anew") from error


def load_state(
    folder: Path, parameters: list[tuple[str, torch.nn.Parameter]], optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put parameters, optimiser and random generators back as they were, and return the loop's own part.

    Raises:
        ValueError: the state does not belong to these parameters, or is damaged.
    """
    progress = read_progress(folder)
    if progress is None:
        raise ValueError(f"{folder}: no training state")
    try:
        saved = load_file(folder / "parameters.safetensors")
        moments = load_file(folder / "optimiser.safetensors")
        generators = load_file(folder / "random.safetensors")
    except Exception as error:  # safetensors raises its own kind
        raise ValueError(f"{folder}: damaged training state ({error}); remove it to start anew") from error
    names = [name for name, _ in parameters]
    if sorted(saved) != sorted(names):
        raise ValueError(f"{folder}: the saved parameters are not those of this model; use another --out")
    with torch.no_grad():
        for name, parameter in parameters:
            parameter.copy_(saved[name])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        index, _, name = key.partition(".")
        if name:
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    torch.set_rng_state(generators["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all([generators[k] for k in sorted(generators) if k.startswith("cuda")])
    version, internal, gauss = progress["python_random"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = progress["numpy_random"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))
    return progress
