"""Compiles our own engine into the wheel, for every system and instruction set, with PyPI's `ziglang`.

    make wheel        # or: pip wheel --no-build-isolation --no-deps --wheel-dir dist .   with hatchling and ziglang

Where `ziglang` is not installed the wheel is built without, says so, and compiles the engine on first use. An editable
installation always does. `PRORANK_WHEEL_ONLY=linux-x86_64/avx2` builds only what starts with it (for tests).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SYSTEMS = {  # our name of a system -> zig's, and the levels that can be chosen there
    "linux-x86_64": ("x86_64-linux-gnu.2.17", ("avx2", "avxvnni", "avx512vnni", "avx512bf16", "amx")),
    "linux-arm64": ("aarch64-linux-gnu.2.17", ("neon", "i8mm")),
    "darwin-arm64": ("aarch64-macos", ("neon", "i8mm")),
    "darwin-x86_64": ("x86_64-macos", ("avx2",)),
    "win32-x86_64": ("x86_64-windows-gnu", ("avx2",)),
}
INTO = "prorank/backends/native"


class EngineHook(BuildHookInterface):  # type: ignore[type-arg]
    """See the module."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        if importlib.util.find_spec("ziglang") is None:
            self.app.display_warning("no ziglang: the wheel carries no engine and will compile it on first use")
            return
        self._folder = tempfile.TemporaryDirectory(prefix="prorank-wheel-")
        for file in build(Path(self.root), Path(self._folder.name)):
            build_data["force_include"][str(file)] = f"{INTO}/{file.relative_to(self._folder.name)}"


def build(root: Path, folder: Path) -> list[Path]:
    """Compile the libraries into a folder, and write their index; all files."""
    sys.path.insert(0, str(root / "src"))  # standard library only, all of it
    from prorank.backends.native.binaries import FOLDER, INDEX, sources_sha256
    from prorank.backends.native.levels import COMMON, LEVELS

    source, only = root / "src" / INTO / "native.c", os.environ.get("PRORANK_WHEEL_ONLY", "")
    levels = {level.name: level for level in LEVELS}
    libraries = []
    for system, (target, names) in SYSTEMS.items():
        for name in names:
            for ending, flags in (("", levels[name].flags), ("-wide", levels[name].wide)):
                place = f"{system}/{name}{ending}"
                if not flags or not place.startswith(only):
                    continue
                path = folder / FOLDER / f"{place}.so"
                path.parent.mkdir(parents=True, exist_ok=True)
                compile_one(source, target, (*COMMON, *flags), path)
                libraries.append(
                    {
                        "system": system,
                        "file": f"{FOLDER}/{place}.so",
                        "flags": [*COMMON, *flags],
                        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                    }
                )
    compiler = f"ziglang {importlib.metadata.version('ziglang')}"
    index = {"sources": sources_sha256(source), "compiler": compiler, "libraries": libraries}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", "utf-8")
    return [folder / INDEX, *(folder / str(one["file"]) for one in libraries)]


def compile_one(source: Path, target: str, flags: tuple[str, ...], path: Path) -> None:
    """One library; what it must export is looked for."""
    from prorank.backends.native.binaries import NAMES

    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *flags]
    command += ["-s", "-shared", "-fPIC", "-o", path.name, str(source), "-lm"]
    subprocess.run(command, check=True, cwd=path.parent)
    for extra in [*path.parent.glob("*.pdb"), *path.parent.glob("*.lib")]:  # Windows' by-products
        extra.unlink()
    lacks = [name for name in NAMES if name.encode() not in path.read_bytes()]
    if lacks:
        raise RuntimeError(f"{path}: exports no {lacks[0]}")
