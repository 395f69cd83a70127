"""What there is on this machine and whether it works: versions, processor, engines, cache, models, one self-test.

Every engine, and the self-test, runs in a process of its own: one that crashes or hangs is a line of the report.
Nothing is fetched. ``prorank doctor`` prints it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prorank._optional import require
from prorank._version import __version__
from prorank.cache import cache_dir

__all__ = ["ENGINES", "SELF_TEST", "Finding", "examine", "record_self_test", "self_test"]

State = Literal["ok", "absent", "failed"]

SELF_TEST = "self_test.json"
"""Beside a built-in reranker's weights: query, documents, and their margins in PyTorch's float32."""

_PACKAGES = (
    "torch", "transformers", "tokenizers", "peft", "safetensors", "gguf", "numpy", "openvino", "onnxruntime",
    "llama-cpp-python", "httpx", "fastapi",
)  # fmt: skip
_TIMEOUT = 300.0  # seconds for a child: the native engine may have to be compiled


class Finding(NamedTuple):
    """One line of the report."""

    part: str
    """``version``, ``processor``, ``engine``, ``cache``, ``model`` or ``self-test``."""
    name: str
    state: State
    """``absent``: not installed or not fetched, which is no fault; ``failed``: there, and does not work."""
    detail: str


def examine() -> Iterator[Finding]:
    """Everything, one after the other, as it is found."""
    yield Finding("version", "prorank", "ok", __version__)
    yield Finding("version", "python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
    for package in _PACKAGES:
        yield _version(package)
    yield _processor()
    for name in ENGINES:
        yield _in_child("engine", name, f"from prorank.pipeline.doctor import ENGINES; say(ENGINES[{name!r}]())")
    yield _cache()
    yield from _models()
    yield _in_child("self-test", "margins", "from prorank.pipeline.doctor import self_test; say(self_test())")


# -- what is here ----------------------------------------------------------------------------------------------------


def _version(package: str) -> Finding:
    try:
        return Finding("version", package, "ok", metadata.version(package))
    except metadata.PackageNotFoundError:
        return Finding("version", package, "absent", "not installed")


def _processor() -> Finding:
    from prorank.backends.cores import available_cores
    from prorank.backends.processor import LEVELS, level, processor_features, processor_name

    name = processor_name() or platform.processor() or platform.machine() or "unknown"
    flags = processor_features()
    known = [flag for one in LEVELS for flag in one.needs if flag in flags]
    used = level()
    reach = "instruction sets not known" if used is None else f"{' '.join(known) or 'no AVX2'}; level {used or 'none'}"
    return Finding("processor", name, "ok", f"{available_cores()} cores; {reach}")


def _cache() -> Finding:
    folder = cache_dir()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    if folder.is_dir() and not os.access(folder, os.W_OK):
        return Finding("cache", str(folder), "failed", "not writable: set PRORANK_CACHE to a folder that is")
    return Finding("cache", str(folder), "ok" if folder.is_dir() else "absent", f"{size / 1e6:.0f} MB")


def _models() -> Iterator[Finding]:
    from prorank.model.base import cached_bases
    from prorank.model.built_in import BUILT_IN
    from prorank.model.checkpoint import built_in_rerankers
    from prorank.model.manifest import read_manifest
    from prorank.published.fetch import is_installed

    cached = dict(cached_bases())
    for spec in BUILT_IN.values():
        file = cache_dir("bases", spec.file)
        if f"{spec.name}-{spec.sha256[:12]}" in cached or file.is_file():
            yield Finding("model", spec.name, "ok", "base, in the cache")
        elif is_installed(spec):
            yield Finding("model", spec.name, "ok", "base, in an installed package")
        else:
            yield Finding(
                "model", spec.name, "absent", f"base, fetched on first use: {spec.download_bytes / 1e6:.0f} MB"
            )
    for name, folder in built_in_rerankers().items():
        manifest = read_manifest(folder)
        yield Finding("model", name, "ok", f"reranker on {manifest.base_name if manifest else 'its base'}")


# -- in a child ------------------------------------------------------------------------------------------------------

_CHILD = """
import json, sys
def say(detail): print("\\n@@" + json.dumps(detail))
try:
    {code}
except ImportError as error:
    if (error.name or "").split(".")[0] == "prorank":
        raise
    print("\\n@@" + json.dumps(None)); print(error, file=sys.stderr); sys.exit(3)
"""


def _in_child(part: str, name: str, code: str) -> Finding:
    """What ``code`` says, run by another Python: a crash there is a finding here."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD.format(code=code)], capture_output=True, text=True, errors="replace",
            timeout=_TIMEOUT, check=False, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Finding(part, name, "failed", f"no answer within {_TIMEOUT:.0f} s")
    except OSError as error:
        return Finding(part, name, "failed", str(error))
    said = [line for line in done.stdout.splitlines() if line.startswith("@@")]
    if done.returncode == 0 and said:
        return Finding(part, name, "ok", str(json.loads(said[-1][2:])))
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode == 3 and said:
        return Finding(part, name, "absent", last)
    if done.returncode < 0:
        return Finding(part, name, "failed", f"crashed: {_signal(-done.returncode)}")
    return Finding(part, name, "failed", last)


def _signal(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _torch() -> str:
    torch = require("torch", extra="torch")
    product = torch.ones(8, 8) @ torch.ones(8, 8)
    assert float(product[0, 0]) == 8.0, "a product of two matrices is wrong"
    devices = [f"cuda {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return f"{torch.__version__}, {torch.get_num_threads()} threads, {', '.join(['cpu', *devices])}"


def _native() -> str:
    from prorank.backends.native.engine import check_engine

    level, origin = check_engine()
    return f"for {level}, {origin}"


def _openvino() -> str:
    openvino = require("openvino", extra="openvino")
    return f"{openvino.__version__}, {', '.join(openvino.Core().available_devices)}"


def _onnx() -> str:
    onnxruntime = require("onnxruntime", extra="onnx")
    return f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"


def _llamacpp() -> str:
    llama = require("llama_cpp", extra="llamacpp")
    return f"{llama.__version__}, {llama.llama_print_system_info().decode('utf-8', 'replace').strip()}"


ENGINES: Mapping[str, Callable[[], str]] = {
    "torch": _torch, "native": _native, "openvino": _openvino, "onnx": _onnx, "llamacpp": _llamacpp,
}  # fmt: skip
"""Name of a backend -> loads it and says what it found; raises ImportError where it is not installed."""


# -- the self-test ---------------------------------------------------------------------------------------------------


def self_test(name: str | None = None) -> str:
    """Score the built-in reranker's own examples as a user would, and compare with the margins recorded with it.

    Raises:
        ImportError: the base is not on this machine, or nothing is recorded: there is nothing to test.
        ValueError: a margin is further off than the engine's tolerance.
    """
    import numpy as np

    from prorank.backends.tolerances import FIDELITY
    from prorank.model.base import BaseError
    from prorank.model.checkpoint import built_in_rerankers
    from prorank.reranker import Reranker, default_model

    name = name or default_model()
    file = built_in_rerankers().get(name, Path(os.devnull)) / SELF_TEST
    if not file.is_file():
        raise ImportError(f"no margins are recorded for {name}")
    expected: dict[str, Any] = json.loads(file.read_text("utf-8"))
    try:
        reranker = Reranker.from_pretrained(name, local_files_only=True)
    except BaseError as error:
        raise ImportError(f"{name}: its base is not on this machine; prorank rank fetches it ({error})") from None
    margins = reranker.margins(expected["query"], expected["documents"])
    wanted = np.asarray(expected["margins"], dtype=np.float32)
    off = float(np.abs(margins - wanted).max())
    fidelity = FIDELITY.get(reranker.backend.name, FIDELITY["openvino-cpu-int8"])
    allowed = fidelity.largest * max(float(wanted.std()), 1.0) + 1e-3  # float32's own sums differ between processors
    facts = f"{name} on {reranker.backend.name}: largest difference of a margin {off:.4f}, allowed {allowed:.4f}"
    if not off <= allowed:
        raise ValueError(facts)
    return facts


def record_self_test(name: str) -> Path:
    """Write a built-in reranker's :data:`SELF_TEST` anew; ``tools/ship_adapter.py`` does so for each that it ships."""
    from prorank.files import write_atomic
    from prorank.model.checkpoint import built_in_rerankers
    from prorank.reranker import Reranker

    reranker = Reranker.from_pretrained(name, backend="torch", device="cpu", dtype="float32")
    margins = [round(float(margin), 5) for margin in reranker.margins(_QUERY, list(_DOCUMENTS))]
    file = built_in_rerankers()[name] / SELF_TEST
    facts = {"query": _QUERY, "documents": _DOCUMENTS, "margins": margins}
    write_atomic(file, json.dumps(facts, indent=2) + "\n")
    return file


_QUERY = "how do vaccines create immunity"
_DOCUMENTS = (
    "A vaccine shows the immune system a harmless part of a germ. Memory cells remain and recognise it later.",
    "Vaccination campaigns of the nineteenth century met with protest in several towns.",
    "The liver stores vitamins and breaks down what the body cannot use.",
    "Knead the dough for ten minutes, then let it rest under a cloth.",
)
