"""Records: one JSON line for each evaluation or benchmark, with all that is needed to judge and repeat it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from prorank._version import __version__
from prorank.backends.cores import available_cores
from prorank.backends.processor import processor_name

__all__ = [
    "append_line",
    "append_record",
    "environment",
    "make_record",
    "peak_memory_mib",
    "read_records",
    "reset_peak_memory",
]

_LIBRARIES = [
    "prorank",
    "torch",
    "transformers",
    "peft",
    "sentence-transformers",
    "onnxruntime",
    "openvino",
    "bm25s",
    "ir-measures",
    "numpy",
]


def append_record(path: str | Path, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Append one line to a JSON-lines file, made where it is not there, and return the record.

    Args:
        kind: what was done: ``evaluate``, ``analyze``, ``benchmark`` ...
        payload: its own fields; they may not be those that every record has.

    Raises:
        ValueError: the payload is not JSON data, or uses a field of the record's own.
    """
    record = make_record(kind, payload)
    append_line(path, record)
    return record


def append_line(path: str | Path, record: Mapping[str, Any]) -> None:
    """Append a record that :func:`make_record` or :func:`append_record` returned to a further file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    with open(path, "ab") as file:  # one write: lines of two processes do not mix
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def make_record(kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The record as a mapping: kind, time (UTC), commit, dirty, environment, then the payload."""
    commit, dirty = _commit()
    record = {
        "kind": kind,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "environment": environment(),
    }
    shared = set(record) & set(payload)
    if shared:
        raise ValueError(f"record: the payload may not hold {', '.join(sorted(shared))}")
    record.update(payload)
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"record: the payload is not JSON data ({error})") from None
    return record


def read_records(path: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Records of a file in order; only those of one kind where it is named."""
    from prorank.data.lines import json_lines

    return [record for _, record in json_lines(Path(path)) if kind is None or record.get("kind") == kind]


def environment() -> dict[str, Any]:
    """Interpreter, processor, memory, accelerator and library versions; no host, user or folder names."""
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    versions.setdefault("prorank", __version__)  # a copied tree has no metadata
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": available_cores(),
        "versions": versions,
    }
    torch = sys.modules.get("torch")  # whoever measured with torch has imported it; nobody else should wait for it
    if torch is not None and hasattr(torch, "get_num_threads"):
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def reset_peak_memory() -> None:
    """Start measuring the peak anew, where the system lets us (Linux, CUDA)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mib() -> dict[str, float]:
    """Peak resident memory of the process, and of the GPU where one is used, in MiB, since the last reset."""
    peak = 0.0
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) / 1024
    except OSError:
        with contextlib.suppress(ImportError):
            import resource

            scale = 2**20 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    found = {"process": round(peak, 1)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return found


def _cpu() -> str:
    return processor_name() or platform.processor() or platform.machine()


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout this package runs from, and whether its code differs from it; (None, None) without one.

    Only what can change a figure counts as a difference: sources, recipes and benchmark scripts, not results.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        paths = ["src", "recipes", "benchmarks", ":(exclude)benchmarks/results"]
        return commit, bool(git("status", "--porcelain", "--", *paths))
    except (OSError, subprocess.SubprocessError):
        return None, None
