"""Fit read-outs at early layers, so that documents far from the top can stop there (rank --cascade fast).

The model's own layers do not change. The command first collects states and margins of some queries' candidates, then
keeps the exits that save most, with tolerances fitted on queries that the regressions have not seen. --out becomes a
copy of the model's folder with cascade.safetensors in it. Until then the collected states wait beside it
(OUT.collected), and the same command resumes after an interruption.

  prorank cascade --model runs/refined/best --data DATA/msmarco-sample --split train --out runs/refined-cascade
  prorank rank --model runs/refined-cascade --cascade fast --top-k 10 --query "..." --documents passages.jsonl
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorank.cli._model import add_model_arguments, load_options, load_reranker, positive
from prorank.cli._queries import add_query_arguments, chosen_queries
from prorank.pipeline.checks import folder_writable, models_known
from prorank.progress import progress_bar

if TYPE_CHECKING:
    from prorank.early_exit.fit import Fit, Seen
    from prorank.pipeline.queries import Candidates

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank cascade``."""
    add_query_arguments(parser, split="train", candidates=50)
    parser.add_argument(
        "--layers",
        type=positive,
        nargs="+",
        metavar="N",
        help="layers to choose exits from (default: every second one, from a quarter to three quarters of the depth)",
    )
    parser.add_argument(
        "--top", type=positive, default=10, metavar="N", help="results to preserve (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Collect, fit, write, report."""
    from prorank.early_exit.fit import fit_cascade
    from prorank.reranker import default_model

    name = args.model or default_model()
    folder = _folder(name, Path(args.out))
    if args.top >= args.candidates:
        raise ValueError(f"--top: expected fewer than the {args.candidates} candidates, got {args.top}")
    models_known(load_options(args), [name])
    folder_writable("--out", args.out)
    jobs = chosen_queries(args, "train")
    reranker = load_reranker(args)
    backend = reranker.backend
    layers = backend.capabilities.layers
    if not layers:
        raise ValueError(f"--model: {backend.name} cannot stop early; fit on the checkpoint, or on native-int8")
    exits = sorted(set(args.layers or range(max(layers // 4, 1), max(3 * layers // 4, 1) + 1, 2)))
    seen = _seen(args, jobs, reranker, exits)
    with progress_bar("fitting", len(exits)) as advance:
        fit = fit_cascade(seen, layers, top_k=args.top, on_layer=lambda _: advance(1) if advance else None)
    _write(folder, Path(args.out), fit)
    shutil.rmtree(_collected(args), ignore_errors=True)
    _report(fit, layers)
    return 0


def _folder(name: str, out: Path) -> Path:
    """The model's own folder.

    Raises:
        ValueError: it is no checkpoint, or ``--out`` is in the way.
    """
    from prorank.model.checkpoint import checkpoint_folder
    from prorank.model.manifest import MANIFEST

    folder = checkpoint_folder(name)
    if not (folder / MANIFEST).is_file():
        raise ValueError(
            f"--model: {name} is not a prorank checkpoint folder; save one with: prorank export --to merged"
        )
    if out.exists():
        raise ValueError(f"--out: {out} exists; choose another name")
    return folder


def _collected(args: argparse.Namespace) -> Path:
    """The folder of what was collected so far."""
    return Path(f"{str(args.out).rstrip('/')}.collected")


def _seen(args: argparse.Namespace, jobs: list[Candidates], reranker: Any, layers: list[int]) -> list[Seen]:
    """Features and margins, with progress; a query that was collected before is read."""
    from prorank.early_exit.fit import Seen, collect
    from prorank.files import atomic_file
    from prorank.journal import journal_key

    kept = _collected(args)
    kept.mkdir(parents=True, exist_ok=True)
    seen = []
    with progress_bar("collecting", len(jobs)) as advance:
        for job in jobs:
            group = reranker.encode(job.query, job.texts, args.instruction).group
            path = kept / f"{journal_key({'model': reranker.fingerprint, 'layers': layers, 'prompts': group})}.npz"
            if not path.is_file():
                one = collect(reranker.backend, group, layers, reranker.batch_tokens)
                with atomic_file(path) as aside:
                    one.save(aside)
            seen.append(Seen.load(path))
            if advance is not None:
                advance(1)
    return seen


def _write(folder: Path, out: Path, fit: Fit) -> None:
    """A copy of the folder with the read-outs, named in the manifest."""
    from prorank.files import atomic_folder, sha256_file
    from prorank.model.manifest import read_manifest, write_manifest

    with atomic_folder(out) as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
        path = fit.cascade.save(aside)
        manifest = read_manifest(aside)
        assert manifest is not None  # _folder has seen it
        write_manifest(aside, replace(manifest, files={**manifest.files, path.name: sha256_file(path)}))


def _report(fit: Fit, layers: int) -> None:
    chosen = fit.cascade.layers
    print("within queries, estimates and margins correlate:")
    for layer, correlation in fit.correlation.items():
        print(f"  layer {layer:>2} of {layers} {correlation:>6.3f}{' *' if layer in chosen else ''}")
    print(f"{'level':<8}{'tolerances':>{7 * len(chosen) + 2}}{'top lost':>10}{'finished':>10}{'work':>7}")
    for name, level in fit.levels.items():
        tolerances = "".join(f"{value:>7.2f}" for value in level.tolerances)
        print(f"{name:<8}  {tolerances}{level.lost:>10.1%}{level.finished:>10.0%}{level.cost:>7.0%}")
    print(
        f"* an exit; top lost: of each query's true top {fit.cascade.top_k}; finished: documents through all layers; "
        "work: layers run, against all (prefix not counted)"
    )
