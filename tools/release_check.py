"""Build the wheel and the sdist, check what they hold and say, and try them in clean environments.

    python tools/release_check.py                               # make release-check: every Python 3.11 to 3.14 here
    python tools/release_check.py --no-install                  # build and check only
    python tools/release_check.py --no-build                    # what lies in dist already, as after `make wheel`
    python tools/release_check.py --pythons python3.12 --uvx    # these, and also as uvx would run it

An environment is empty but for the wheel and what it needs; in it a ranking of the example passages runs, with the
cache of the user and our own engine from the wheel. For a Python that is not here, pip is asked whether everything the
wheel needs exists as a wheel. Exit code 1 where anything fails. Needs the dependency groups `wheel` and `release`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
    parser.add_argument("--out", type=Path, default=REPO / "dist", help="emptied before a build (default: dist)")
    parser.add_argument("--pythons", nargs="*", metavar="NAME", help="programs (default: those of 3.11 to 3.14 here)")
    parser.add_argument("--no-install", action="store_true", help="build and check only")
    parser.add_argument("--no-build", action="store_true", help="take the wheel (and the sdist, if any) in --out")
    parser.add_argument("--uvx", action="store_true", help="also run the wheel with uvx")
    args = parser.parse_args(arguments)
    try:
        wheel, source = lying(args.out) if args.no_build else built(args.out)
        problems = contents(wheel, source) + engines(wheel)
        run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), *([str(source)] if source else []))
        here = {} if args.no_install else {name: name for name in args.pythons or ()} or there()
        for python in here.values():
            problems += tried(python, wheel)
        for name in NAMES if here and not args.pythons else ():
            if name not in here:
                problems += resolves(name.removeprefix("python"), wheel)
        if args.uvx:
            print("uvx")
            run("uvx", "--no-cache", "--from", str(wheel), "prorank", *QUERY)
    except subprocess.CalledProcessError as error:
        problems = [f"{' '.join(map(str, error.cmd[:6]))} ...: exit code {error.returncode}\n{error.stderr or ''}"]
    for problem in problems:
        print(f"release-check: {problem}", file=sys.stderr)
    print("not ready" if problems else f"ready: {', '.join(file.name for file in (wheel, source) if file)}")
    return 1 if problems else 0


def there(home: Path | None = None) -> dict[str, str]:
    """The Pythons at hand that start, by their usual name: in PATH (a shim of a version manager may not start), else
    pyenv's or uv's."""
    home = home or Path.home()
    found: dict[str, str] = {}
    for name in NAMES:
        minor = name.removeprefix("python")
        places = [shutil.which(name), *sorted(map(str, home.glob(f".pyenv/versions/{minor}.*/bin/python")))]
        places += sorted(map(str, home.glob(f".local/share/uv/python/cpython-{minor}.*/bin/python")))
        for place in filter(None, places):
            if subprocess.run([place, "--version"], capture_output=True, check=False).returncode == 0:
                found[name] = place
                break
        else:
            print(f"{name}: not here; only its dependencies are looked up")
    return found


def built(out: Path) -> tuple[Path, Path | None]:
    """The wheel and the sdist, the wheel built from the sdist as an index's users may do.

    Not in an environment of its own, which would have no ziglang: the wheel would carry no engine.
    """
    shutil.rmtree(out, ignore_errors=True)
    print("building: the engine is compiled for every system, which takes minutes", flush=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(REPO))
    return lying(out)


def lying(out: Path) -> tuple[Path, Path | None]:
    """The one wheel in a folder, and the sdist, if there is one."""
    wheels, sources = sorted(out.glob("*.whl")), sorted(out.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) > 1:
        raise SystemExit(f"--out {out}: expected one wheel and at most one sdist, found {len(wheels)}, {len(sources)}")
    return wheels[0], sources[0] if sources else None


def engines(wheel: Path) -> list[str]:
    """Systems and levels of our own engine that the wheel lacks, or carries for other sources than its own."""
    sys.path.insert(0, str(REPO))
    from hatch_build import INTO, SYSTEMS

    sys.path.insert(0, str(REPO / "src"))
    from prorank.backends.native.binaries import INDEX

    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        if f"{INTO}/{INDEX}" not in names:
            return [f"{wheel.name} carries no engine: build it where ziglang is installed (make wheel)"]
        index = json.loads(archive.read(f"{INTO}/{INDEX}"))
        sources = sorted(name for name in names if name.startswith(f"{INTO}/") and name.endswith(".h"))
        content = b"\0".join(archive.read(name) for name in [f"{INTO}/native.c", *sources])
    carried = {str(one["file"]) for one in index["libraries"] if f"{INTO}/{one['file']}" in names}
    problems = [
        f"{wheel.name} carries no engine for {system}, {level}"
        for system, (_, levels) in SYSTEMS.items()
        for level in levels
        if f"binaries/{system}/{level}.so" not in carried
    ]
    if hashlib.sha256(content).hexdigest() != index["sources"]:
        problems.append(f"{wheel.name}: its engine was compiled from other sources than it holds")
    return problems


def resolves(minor: str, wheel: Path) -> list[str]:
    """Whether everything the wheel needs exists as a wheel for a Python that is not here."""
    print(f"python{minor}: looking up what the wheel needs", flush=True)
    with tempfile.TemporaryDirectory(prefix="prorank-release-") as scratch:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--python-version", minor, "--only-binary", ":all:", "--target", scratch, str(wheel)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [f"python{minor}: {done.stderr.strip().splitlines()[-1]}"] if done.returncode else []


def contents(wheel: Path, source: Path | None) -> list[str]:
    """What is missing, too large or left over."""
    names = set(zipfile.ZipFile(wheel).namelist())
    problems = [f"{wheel.name} lacks {name}" for name in WANTED if name not in names]
    problems += [f"{wheel.name} holds {name}" for name in names if name.endswith((".gguf", ".pyc"))]
    if wheel.stat().st_size > LARGEST:
        problems.append(f"{wheel.name} has {wheel.stat().st_size / 1e6:.0f} MB, more than {LARGEST / 1e6:.0f}")
    if source is not None:
        with tarfile.open(source) as archive:
            inside = {name.partition("/")[2] for name in archive.getnames()}
        wanted = ("LICENSE", "README.md", "CHANGELOG.md", "hatch_build.py")
        problems += [f"{source.name} lacks {name}" for name in wanted if name not in inside]
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
        size = sum(file.lstat().st_blocks for file in Path(scratch).rglob("*")) * 512
        print(f"{python}: {size / 1e6:.0f} MB on disk, pip included", flush=True)
        outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        outside["CC"] = "/nowhere/cc"  # the wheel's engine, or none
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
