"""How the work of one model is divided among processes: one set of options for each."""

from __future__ import annotations

from dataclasses import replace

from prorank.backends.cores import available_cores
from prorank.model.options import LoadOptions

__all__ = ["each_process", "thread_variables"]


def each_process(options: LoadOptions) -> list[LoadOptions]:
    """What each process loads: its device, and its share of the cores unless ``threads`` says how many.

    Raises:
        ValueError: more processes than cores, no device, or both ``processes`` and ``devices`` (or ``device``).
    """
    cores = available_cores()
    devices: list[str | None]
    if options.devices is not None:
        if options.processes is not None:
            raise ValueError("processes: devices have a process each already; give one of the two")
        if options.device is not None:
            raise ValueError(f"device: devices names them; leave out {options.device!r}")
        if isinstance(options.devices, str) or not options.devices or not all(options.devices):
            raise ValueError(f"devices: expected names such as cuda:0 and cuda:1, got {options.devices!r}")
        devices = list(options.devices)
        field = "devices"
    else:
        field, count = "processes", 1 if options.processes is None else options.processes
        if count < 1:
            raise ValueError(f"processes must be at least 1, got {count}")
        devices = [options.device] * count
    on_cpu = len(devices) if field == "processes" else devices.count("cpu")
    if on_cpu > cores:
        raise ValueError(f"{field}: {on_cpu} processes are more than the {cores} cores of this machine")
    threads = options.threads or max(1, cores // len(devices))
    return [replace(options, device=one, threads=threads, processes=None, devices=None) for one in devices]


def thread_variables(each: LoadOptions) -> dict[str, str]:
    """Variables that keep libraries within a process's share of the cores."""
    return {name: str(each.threads) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS") if each.threads is not None}
