"""A training run on a GPU that is lent for minutes and has no network: stage here, assemble and train there.

    python tools/short_gpu.py stage --out .stage --wheels gguf bm25s PyStemmer --python 3.12
    python tools/short_gpu.py run --parts .stage --work work --out "$OUT"

``stage`` packs what the recipe needs into parts of at most 60 MiB, with their sha256: the base's file, the teachers'
encoders, the collections (from PRORANK_DATA), wheels of missing libraries. The parts may be carried one by one.
With ``--teach`` the teachers score here, and their scores travel in place of the encoders, half of the bytes.
``run`` checks and unpacks them, then trains warmup and refine as ``prorank train`` does (the teachers score the
candidates), evaluates, and prints one JSON line last. ``--out`` gets that line, the reports and the trained adapter,
again in parts. An interrupted run goes on in the same ``--work``. dl21-lists is trained on, so that of it only refine's
own held-out queries are measured (the line's ``held_out``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / "src"), str(REPO / "tools")]

from parts import pack, unpack  # noqa: E402

RECIPE = REPO / "recipes" / "gpu" / "qwen2.5-coder-0.5b.toml"
EVALUATE = ("dl19:test:given:bm25", "scifact:test:bm25", "nfcorpus:test:bm25", "cosqa:dev:bm25", "wikiqa:dev:bm25")
MIB = 1 << 20


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    stage_ = commands.add_parser("stage", help="pack everything a run needs")
    stage_.add_argument("--out", type=Path, required=True, help="folder for the parts")
    stage_.add_argument("--wheels", nargs="*", default=[], metavar="NAME", help="libraries that the machine lacks")
    stage_.add_argument("--teach", action="store_true", help="score here and stage the scores, not the encoders")
    stage_.add_argument("--python", default="3.12", metavar="X.Y", help="its Python (default: %(default)s)")
    stage_.add_argument("--part-mib", type=int, default=60, metavar="N", help="size of a part (default: %(default)s)")
    run_ = commands.add_parser("run", help="assemble, teach, train, evaluate, print one JSON line")
    run_.add_argument("--parts", type=Path, required=True, help="the staged parts")
    run_.add_argument("--work", type=Path, required=True, help="folder to unpack and train in")
    run_.add_argument("--out", type=Path, required=True, help="folder for what should come back")
    run_.add_argument("--device", help="cpu or cuda (default: the best there is)")
    run_.add_argument("--back-mib", type=int, default=15, metavar="N", help="size of a part (default: %(default)s)")
    run_.add_argument("--set", nargs="*", default=[], metavar="FLAG=VALUE", help="of train: refine.steps=100")
    run_.add_argument("--max-queries", type=int, metavar="N", help="of each evaluation")
    for one in (stage_, run_):
        one.add_argument("--recipe", type=Path, default=RECIPE, help="of prorank train (default: the 0.5 B's)")
        one.add_argument(
            "--evaluate", nargs="*", default=list(EVALUATE), metavar="DATA:SPLIT:FIRST_STAGE", help="what is measured"
        )
    args = parser.parse_args(words)
    try:
        return stage(args) if args.command == "stage" else run(args)
    except ValueError as error:
        parser.error(str(error))


def stage(args: argparse.Namespace) -> int:
    """Gather files under their names over there, then pack them."""
    from prorank.config import read_config
    from prorank.data.encoders import encoder_row
    from prorank.data.load import there
    from prorank.data.teacher import mixture_parts
    from prorank.model.built_in import BUILT_IN, base_file
    from prorank.published.fetch import cached_folder, published_folder

    recipe = read_config(args.recipe)
    found: dict[str, Path] = {}
    if recipe["model"] in BUILT_IN:
        spec = BUILT_IN[recipe["model"]]
        found[f"cache/bases/{spec.file}"] = base_file(spec)
    else:
        found |= _files(there(recipe["model"]), "model")
    args.out.mkdir(parents=True, exist_ok=True)
    scratch = args.out / "scratch"
    specs = (
        []
        if args.teach
        else [part.spec for one in recipe["datasets"] if "teacher" in one for part in mixture_parts(one["teacher"])]
    )
    for name in sorted({spec.rpartition(":")[2] for spec in specs}):
        if (row := encoder_row(name)) is not None:
            inside = f"cache/{cached_folder(row).parent.name}/{cached_folder(row).name}"
            found |= _files(published_folder(row), inside)
    collections = {one["path"] for one in recipe["datasets"]}
    collections |= {one.partition(":")[0] for one in [*recipe.get("test", ()), *args.evaluate]}
    for name in sorted(collections):
        found |= _files(there(name), f"data/{name}")
    if args.teach:
        found |= _files(_taught(args.recipe, scratch / "taught"), "")
    if args.wheels:
        found |= _files(_wheels(args.wheels, args.python, scratch / "wheels"), "wheels")
    parts = pack(found, args.out, args.part_mib * MIB)
    shutil.rmtree(scratch, ignore_errors=True)
    total = sum(file.stat().st_size for file in args.out.iterdir())
    print(f"{len(found)} files, {total / MIB:.0f} MiB in {len(parts)} parts of at most {args.part_mib} MiB: {args.out}")
    return 0


def _taught(recipe: Path, folder: Path) -> Path:
    """Runs with the teachers' scores, as they lie in the collections, and the recipe that reads them."""
    from prorank.config import build_config, read_config
    from prorank.data.trec import write_run
    from prorank.pipeline.datasets import DatasetSpec, load_dataset, load_excluded
    from prorank.training.refine.config import RefineConfig

    file, text = read_config(recipe), recipe.read_text("utf-8")
    depth = build_config(RefineConfig, "refine", file).depth
    excluded = load_excluded(tuple(file.get("test", ())))
    for table in file["datasets"]:
        if "teacher" not in table:
            continue
        prepared = load_dataset(DatasetSpec(**table), depth, excluded)
        target = folder / "data" / table["path"] / "runs" / f"taught.{prepared.collection.split}.trec.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_run(target, prepared.teacher or {})
        text = text.replace(f'teacher = "{table["teacher"]}"', 'teacher = "given:taught"')
    (folder / "recipe.toml").write_text(text, "utf-8")
    return folder


def run(args: argparse.Namespace) -> int:
    """Everything there, step by step; each is timed."""
    seconds: dict[str, float] = {}
    args.out.mkdir(parents=True, exist_ok=True)
    with _timed("assemble", seconds):
        unpack(args.parts, args.work)
        if (wheels := sorted((args.work / "wheels").glob("*.whl"))) and not (args.work / "site").is_dir():
            _install(wheels, args.work / "site")
        sys.path.insert(0, str(args.work / "site"))
    os.environ |= {
        "PRORANK_CACHE": str(args.work / "cache"), "PRORANK_DATA": str(args.work / "data"), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    from prorank.cli.main import main as prorank

    recipe = args.work / "recipe.toml" if (args.work / "recipe.toml").is_file() else args.recipe
    device = ["--device", args.device] if args.device else []
    trained = args.work / "run"
    flags = [word for one in args.set for word in (f"--{one.partition('=')[0]}", one.partition("=")[2])]
    with _timed("train", seconds):
        # Its own test is cut short: the evaluations below take each collection's own first stage.
        words = ["train", "--config", str(recipe), "--out", str(trained), "--test-queries", "2"]
        words += ["--model", str(args.work / "model")] if (args.work / "model").is_dir() else []
        _succeed(prorank([*words, "--test-top-k", "2", *device, *flags]), "train")
    blocks = sorted(trained.glob("refine*/"), key=lambda folder: folder.stat().st_mtime)
    model = next(folder for folder in (blocks[-1] / "best", blocks[-1] / "last") if folder.is_dir())
    measured: dict[str, Any] = {}
    with _timed("evaluate", seconds):
        for one in args.evaluate:
            data, split, first_stage = one.split(":", 2)
            folder = trained / f"evaluate-{data}-{split}"
            words = ["evaluate", "--data", data, "--split", split, "--first-stage", first_stage, "--out", str(folder)]
            words += ["--model", f"refined={model}", *device]
            words += ["--max-queries", str(args.max_queries)] if args.max_queries else []
            _succeed(prorank(words), f"evaluate {one}")
            record = json.loads((folder / "record.jsonl").read_text("utf-8").splitlines()[-1])
            measured[f"{data}:{split}"] = {s["name"]: s["measures"]["nDCG@10"] for s in record["systems"]}
            shutil.copy(folder / "report.md", args.out / f"{data}-{split}.md")
    pack(_files(model, "model"), args.out, args.back_mib * MIB)
    record = json.loads((blocks[-1] / "records.jsonl").read_text("utf-8").splitlines()[-1])
    line = json.dumps({
        "recipe": args.recipe.name, "set": args.set, "model": record["model"], "base_sha256": record["base_sha256"],
        "commit": record["commit"], "environment": record["environment"],
        "steps": record["steps"], "documents": record["documents"],
        "documents_per_second": record["documents_per_second"],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "held_out": {"before": record["before"], "after": record["after"]}, "nDCG@10": measured,
    })  # fmt: skip
    (args.out / "result.jsonl").write_text(line + "\n", "utf-8")
    print(line)
    return 0


def _files(folder: Path, name: str) -> dict[str, Path]:
    """Every file of a folder (or the one file), under ``name``."""
    if folder.is_file():
        return {name: folder}
    prefix = f"{name}/" if name else ""
    return {prefix + f.relative_to(folder).as_posix(): f for f in sorted(folder.rglob("*")) if f.is_file()}


def _wheels(names: Sequence[str], python: str, folder: Path) -> Path:
    """Wheels for a Linux machine with another Python, without what they depend on."""
    platforms = [f"manylinux_2_{n}_x86_64" for n in (34, 31, 28, 27, 24, 17)] + ["manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--python-version", python, "--implementation", "cp", "--dest", str(folder)]
    command += [word for platform in platforms for word in ("--platform", platform)]
    if subprocess.run([*command, *names], check=False).returncode:
        raise ValueError(f"--wheels: pip found no wheel of some of {', '.join(names)} for Python {python} on Linux")
    return folder


def _install(wheels: Sequence[Path], folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, *map(str, wheels)], check=True)


def _succeed(status: int, what: str) -> None:
    if status:
        raise SystemExit(f"{what} ended with status {status}")


@contextlib.contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.monotonic()
    print(f"{name} ...", file=sys.stderr, flush=True)
    yield
    seconds[name] = time.monotonic() - started


if __name__ == "__main__":
    raise SystemExit(main())
