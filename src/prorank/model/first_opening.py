"""Opens an engine and a graph for the first time in a child process: should it crash, the caller lives to say so.

Engines are native code that chooses its instructions by the processor: a version that is new here, or a graph of other
sizes, can end the whole process by a signal (OpenVINO 2026.4.1 did, SIGFPE, on processors with AMX). A child opens the
folder and scores a few rows, first as fast as the engine can, then more and more cautiously. What was found is kept in
the cache for this engine, version, processor and graph: from the second time on no child is started.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prorank.backends.cores import available_cores
from prorank.backends.processor import processor_features, processor_name
from prorank.cache import cache_dir
from prorank.files import write_atomic
from prorank.model.manifest import Manifest
from prorank.types import EncodedGroup

__all__ = ["ENGINES", "Engine", "how_cautiously"]

logger = logging.getLogger(__name__)


class Engine(NamedTuple):
    """What is to be known of one before it is opened."""

    module: str
    """What is imported; an engine that is not installed is not tried."""
    distribution: str
    """Whose version counts."""
    cautions: int = 1
    """Ways to open it, from the fastest to the most cautious."""
    graph: str = "config.json"
    """The file that says which graph it is, without the weights."""
    instead: str = "openvino-int8 or onnx-int8"
    """What else to export to."""


ENGINES: Mapping[str, Engine] = {
    "native": Engine("prorank.backends.native", "prorank"),
    "openvino": Engine("openvino", "openvino", 3, "openvino_model.xml", "native-int8 or onnx-int8"),
    "onnx": Engine("onnxruntime", "onnxruntime", instead="native-int8 or openvino-int8"),
    "llamacpp": Engine("llama_cpp", "llama_cpp_python", instead="native-int8 or openvino-int8"),
}

_TIMEOUT = 600  # seconds; native.c is compiled within them
_MARK = "prorank-first-opening "
_STEERING = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # and PRORANK_NATIVE...: another choice is another engine
_ENDED_FROM_OUTSIDE = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
_WINDOWS_CRASH = 0xC0000000  # exit codes from here on are exceptions of the processor or the system


def how_cautiously(
    folder: Path, manifest: Manifest, *, threads: int | None = None, max_length: int | None = None
) -> int:
    """Find out, or recall, how an exported folder can be opened here without a crash.

    Args:
        folder: an export; its files are known to be whole.
        threads: as for the engine, as ``max_length``.

    Returns:
        0: as fast as the engine can; higher: more cautiously (what that means is the engine's). Also 0 where nothing
        could be found out: opening it then says what is wrong.

    Raises:
        ImportError: the engine crashes here, however it is opened, or memory does not suffice.
    """
    engine = ENGINES.get(manifest.backend)
    if engine is None or not sys.executable or importlib.util.find_spec(engine.module) is None:
        return 0
    kept = cache_dir("opened", f"{manifest.backend}-{_identity(engine, folder, manifest, threads, max_length)}.json")
    found = _recall(kept)
    if found is None:
        job = {"folder": str(folder.resolve()), "threads": threads, "max_length": max_length}
        found = _try(engine, job)
        if "works" in found or "crash" in found:
            _keep(kept, {**found, "engine": _version(engine), "processor": processor_name()})
    if "killed" in found:
        raise ImportError(
            f"{folder}: {_version(engine)} was killed ({found['killed']}) while it was opened for the first time; "
            "is there enough memory?"
        )
    if "crash" in found:
        raise ImportError(
            f"{folder}: {_version(engine)} crashes on this processor ({found['crash']}); export to {engine.instead} "
            f"instead. {kept} remembers it: delete it to try again"
        )
    return int(found.get("works", 0))


def _try(engine: Engine, job: Mapping[str, Any]) -> dict[str, Any]:
    """Start children until one works: ``{"works": caution}``, ``{"crash": signal}``, ``{"killed": signal}`` or ``{}``.

    A crash ends its child, and the next one begins a step more cautiously.
    """
    caution, crash = 0, ""
    while caution < engine.cautions:
        said, ended = _child({**job, "cautions": list(range(caution, engine.cautions))})
        if "works" in said:
            if said["works"]:
                reason = crash or said.get("failed", "")
                logger.warning(
                    "%s does not run as it should here (%s): it is run more slowly", _version(engine), reason
                )
            return {"works": said["works"]}
        if ended in (*(one.name for one in _ENDED_FROM_OUTSIDE), "SIGKILL"):
            return {"killed": ended}
        if not ended:  # it raised an error, which opening it here will raise again
            return {}
        crash, caution = ended, int(said.get("trying", caution)) + 1
    return {"crash": crash}


def _child(job: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What the child said last, and the signal that ended it, or ``""``."""
    code = "from prorank.model.first_opening import _first_opening; _first_opening()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(job)],
            capture_output=True, env=environment, timeout=_TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.debug("first opening: %s", error)
        return {}, ""
    lines = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.startswith(_MARK)]
    said = {name: value for line in lines for name, value in json.loads(line.removeprefix(_MARK)).items()}
    logger.debug("first opening: exit code %s, %s", done.returncode, said)
    return said, _signal(done.returncode)


def _signal(code: int) -> str:
    if code < 0:
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"exception {code:#x}" if code >= _WINDOWS_CRASH else ""


def _first_opening() -> None:
    """The child: says what it tries, then what works."""
    from prorank.model.engines import opened
    from prorank.model.manifest import read_manifest

    with contextlib.suppress(ImportError, ValueError):  # a crash leaves no file of the whole memory behind
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    job = json.loads(sys.argv[1])
    folder = Path(job["folder"])
    manifest = read_manifest(folder)
    assert manifest is not None
    short, long = [(1, 2), (2,)], [tuple(range(1, 40))] * 4  # engines choose their instructions by the shape, too
    for caution in job["cautions"]:
        _say(trying=caution)
        try:
            backend = opened(folder, manifest, job["max_length"], threads=job["threads"], caution=caution)
            for own in (short, long):
                backend.label_logits(EncodedGroup((1, 2, 3), own, 1))
        except Exception as error:  # every engine has errors of its own
            _say(failed=str(error))
            continue
        _say(works=caution)
        break
    sys.stdout.flush()
    os._exit(0)  # threads of an engine that failed half way may hold Python's own end up


def _say(**facts: Any) -> None:
    print("\n" + _MARK + json.dumps(facts), flush=True)


def _identity(
    engine: Engine, folder: Path, manifest: Manifest, threads: int | None, max_length: int | None
) -> str:  # fmt: skip
    """What an outcome holds for: engine, version, processor and graph; weights do not matter."""
    graph = folder / engine.graph
    parts = [
        _version(engine),
        processor_name(),
        " ".join(sorted(processor_features())),
        *(f"{name}={value}" for name, value in sorted(os.environ.items()) if _steers(name)),
        manifest.precision,
        hashlib.sha256(graph.read_bytes()).hexdigest() if graph.is_file() else json.dumps(manifest.files),
    ]
    if engine.cautions > 1:  # how many passes there are at a time follows from these
        parts += [str(threads or available_cores()), str(max_length)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _steers(name: str) -> bool:
    return name in _STEERING or name.startswith("PRORANK_NATIVE")


def _version(engine: Engine) -> str:
    version = importlib.metadata.version(engine.distribution)
    if engine.distribution != "prorank":
        return f"{engine.module} {version}"
    spec = importlib.util.find_spec(engine.module)
    places = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
    sources = [
        file for place in places for file in sorted(place.iterdir()) if file.suffix in (".c", ".h", ".py", ".json")
    ]
    return f"native {hashlib.sha256(b''.join(file.read_bytes() for file in sources)).hexdigest()[:8]}"


def _recall(kept: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(kept.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and ("works" in found or "crash" in found) else None


def _keep(kept: Path, found: Mapping[str, Any]) -> None:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, json.dumps(found, indent=2) + "\n")
    except OSError as error:  # a cache that cannot be written to costs a child each time
        logger.debug("first opening: %s is not kept: %s", kept, error)
