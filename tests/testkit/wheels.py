"""A stand-in for ``pip download``: wheels with given files, made where pip would put them."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["no_network", "pip_download"]


def pip_download(wheels: Mapping[str, Mapping[str, bytes]], asked: list[str] | None = None) -> Callable[..., Any]:
    """What takes the place of ``subprocess.run``.

    Args:
        wheels: requirement -> path in the wheel -> content; a requirement that is missing fails as without network.
        asked: gets every requirement that is asked for.
    """

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        assert command[command.index("--only-binary") + 1] == ":all:"  # a source archive would be run
        folder, requirement = Path(command[command.index("--dest") + 1]), command[-1]
        assert options["env"]["TMPDIR"] == str(folder)
        if asked is not None:
            asked.append(requirement)
        if requirement not in wheels:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")
        with zipfile.ZipFile(folder / "some-1.0-py3-none-any.whl", "w") as wheel:
            for path, content in wheels[requirement].items():
                wheel.writestr(path, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def no_network(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Takes the place of ``subprocess.run`` where nothing can be reached."""
    return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")
