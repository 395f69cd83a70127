"""Build the wheel and the sdist, check what they hold and say, and try them in clean environments.

    python tools/release_check.py                               # make release-check: every Python 3.11 to 3.14 here
    python tools/release_check.py --no-install                  # build and check only
    python tools/release_check.py --pythons python3.12 --uvx    # these, and also as uvx would run it

An environment is empty but for the wheel and what it needs; in it a ranking of the example passages runs, with the
cache of the user. Exit code 1 where anything fails. Needs the dependency group `release`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
WANTED = ("prorank/py.typed", "prorank/models/prorank-smollm2-135m/adapter_model.safetensors",
          "prorank/backends/native/native.c")  # fmt: skip
"""What a wheel must hold besides code."""
LARGEST = 60_000_000
"""Bytes of a wheel."""
NAMES = ("python3.11", "python3.12", "python3.13", "python3.14")
QUERY = ["rank", "--query", "how do vaccines create immunity", "--documents", str(REPO / "examples/passages.jsonl"),
         "--top-k", "1", "--format", "jsonl"]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPO / "dist", help="emptied first (default: dist)")
    parser.add_argument("--pythons", nargs="*", metavar="NAME", help="programs (default: those of 3.11 to 3.14 here)")
    parser.add_argument("--no-install", action="store_true", help="build and check only")
    parser.add_argument("--no-isolation", action="store_true", help="build with the hatchling that is installed")
    parser.add_argument("--uvx", action="store_true", help="also run the wheel with uvx")
    args = parser.parse_args(arguments)
    try:
        wheel, source = built(args.out, isolated=not args.no_isolation)
        problems = contents(wheel, source)
        run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source))
        for python in [] if args.no_install else args.pythons or there():
            problems += tried(python, wheel)
        if args.uvx:
            print("uvx")
            run("uvx", "--no-cache", "--from", str(wheel), "prorank", *QUERY)
    except subprocess.CalledProcessError as error:
        problems = [f"{' '.join(map(str, error.cmd[:6]))} ...: exit code {error.returncode}\n{error.stderr or ''}"]
    for problem in problems:
        print(f"release-check: {problem}", file=sys.stderr)
    print("not ready" if problems else f"ready: {wheel.name}, {source.name}")
    return 1 if problems else 0


def there() -> list[str]:
    """The Pythons at hand that start; a shim of a version manager may not."""
    found = []
    for name in NAMES:
        if shutil.which(name) and subprocess.run([name, "--version"], capture_output=True, check=False).returncode == 0:
            found.append(name)
        else:
            print(f"{name}: not here, not checked")
    return found


def built(out: Path, *, isolated: bool) -> tuple[Path, Path]:
    """The wheel and the sdist, the wheel built from the sdist as an index's users may do."""
    shutil.rmtree(out, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", str(out), *([] if isolated else ["--no-isolation"]), str(REPO))
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, source


def contents(wheel: Path, source: Path) -> list[str]:
    """What is missing, too large or left over."""
    names = set(zipfile.ZipFile(wheel).namelist())
    problems = [f"{wheel.name} lacks {name}" for name in WANTED if name not in names]
    problems += [f"{wheel.name} holds {name}" for name in names if name.endswith((".gguf", ".pyc"))]
    if wheel.stat().st_size > LARGEST:
        problems.append(f"{wheel.name} has {wheel.stat().st_size / 1e6:.0f} MB, more than {LARGEST / 1e6:.0f}")
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    problems += [
        f"{source.name} lacks {name}" for name in ("LICENSE", "README.md", "CHANGELOG.md") if name not in inside
    ]
    return problems + unlike_the_tag(wheel.name.split("-")[1])


def unlike_the_tag(version: str) -> list[str]:
    """A tagged commit has the tag's version, and a section of the changelog; others are on the way to one."""
    done = subprocess.run(["git", "tag", "--points-at", "HEAD"], capture_output=True, text=True, cwd=REPO, check=False)
    tags = [tag for tag in done.stdout.split() if tag.startswith("v")]
    problems = [
        f"the tag is {tag}, the version {version} (src/prorank/_version.py)" for tag in tags if tag != f"v{version}"
    ]
    if tags and f"## [{version}]" not in (REPO / "CHANGELOG.md").read_text("utf-8"):
        problems.append(f"CHANGELOG.md has no section [{version}]")
    return problems


def tried(python: str, wheel: Path) -> list[str]:
    """Install and use the wheel in an environment of its own."""
    print(f"{python}: installing and ranking", flush=True)
    with tempfile.TemporaryDirectory(prefix="prorank-release-") as scratch:
        run(python, "-m", "venv", scratch)
        run(f"{scratch}/bin/python", "-m", "pip", "install", "--quiet", str(wheel))
        outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [f"{scratch}/bin/prorank", *QUERY], capture_output=True, text=True, env=outside, cwd=scratch
        )
        heavy = f"{scratch}/bin/python -c 'import torch'"
        if subprocess.run(heavy, shell=True, capture_output=True, check=False).returncode == 0:
            return [f"{python}: a plain install brought torch"]
        if done.returncode or '"doc_id": "v1"' not in done.stdout:
            return [f"{python}: prorank rank: exit code {done.returncode}: {done.stdout}{done.stderr}"]
    return []


def run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPO)


if __name__ == "__main__":
    sys.exit(main())
