"""Fit a read-out at an early layer, so that documents far from the top may stop there (rank --cascade fast).

The model's own layers stay as they are. States and margins of some queries' candidates are collected first; the exit
that saves most is kept, with tolerances fitted on queries that it has not seen. --out is a copy of the model's folder
with cascade.safetensors in it.

  prorank cascade --model runs/refined/best --data DATA/msmarco-sample --split train --out runs/refined-cascade
  prorank rank --model runs/refined-cascade --cascade fast --top-k 10 --query "..." --documents passages.jsonl
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorank.cli._model import add_model_arguments, load_reranker, positive
from prorank.cli._queries import add_query_arguments, chosen_queries
from prorank.progress import progress_bar

if TYPE_CHECKING:
    from prorank.train.cascade import Exit, Seen

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank cascade``."""
    add_query_arguments(parser, split="train", candidates=50)
    parser.add_argument(
        "--layers", type=positive, nargs="+", metavar="N", help="exits to try (default: a third, a half, two thirds)"
    )
    parser.add_argument("--top", type=positive, default=10, metavar="N", help="results to keep (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Collect, fit, write, report."""
    from prorank.backends.torch import TorchBackend
    from prorank.reranker import default_model
    from prorank.train.cascade import choose, fit_exits

    name = args.model or default_model()
    folder = _folder(name, Path(args.out))
    if args.top >= args.candidates:
        raise ValueError(f"--top: expected fewer than the {args.candidates} candidates, got {args.top}")
    reranker = load_reranker(args)
    backend = reranker.backend
    if not isinstance(backend, TorchBackend):
        raise ValueError(f"--model: {name} is an export; fit the read-out on the checkpoint")
    layers = backend.model.config.get_text_config().num_hidden_layers
    exits = sorted(set(args.layers or (layers // 3, layers // 2, 2 * layers // 3)))
    fitted = fit_exits(_seen(args, reranker, exits), layers, top_k=args.top)
    best = choose(fitted)
    _write(folder, Path(args.out), best)
    _report(fitted, best, layers)
    return 0


def _folder(name: str, out: Path) -> Path:
    """The model's own folder.

    Raises:
        ValueError: it is no checkpoint, or ``--out`` is in the way.
    """
    from prorank.artifact import MANIFEST, checkpoint_folder

    folder = checkpoint_folder(name)
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"--model: {name} is no prorank checkpoint folder; save one with: prorank export --to merged")
    if out.exists():
        raise ValueError(f"--out: {out} exists; choose another name")
    return folder


def _seen(args: argparse.Namespace, reranker: Any, layers: list[int]) -> list[Seen]:
    """States and margins, with progress."""
    from prorank.train.cascade import collect

    jobs = chosen_queries(args, "train")
    seen = []
    with progress_bar("collecting", len(jobs)) as advance:
        for job in jobs:
            group = reranker.encode(job.query, job.texts, args.instruction).group
            seen.append(collect(reranker.backend, group, layers, reranker.batch_tokens))
            if advance is not None:
                advance(1)
    return seen


def _write(folder: Path, out: Path, best: Exit) -> None:
    """A copy of the folder with the read-out, named in the manifest."""
    from prorank.artifact import read_manifest, write_manifest
    from prorank.files import atomic_folder, sha256_file

    with atomic_folder(out) as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
        path = best.cascade.save(aside)
        manifest = read_manifest(aside)
        assert manifest is not None  # _folder has seen it
        write_manifest(aside, replace(manifest, files={**manifest.files, path.name: sha256_file(path)}))


def _report(fitted: list[Exit], best: Exit, layers: int) -> None:
    print(f"{'exit':<14}{'correlation':>12}{'level':>9}{'tolerance':>11}{'finished':>10}{'work':>7}")
    for one in fitted:
        chosen = " *" if one is best else ""
        for level, tolerance in one.cascade.tolerances.items():
            print(
                f"{f'{one.cascade.layer} of {layers}{chosen}':<14}{one.correlation:>12.3f}{level:>9}{tolerance:>11.2f}"
                f"{one.kept[level]:>10.0%}{one.cost[level]:>7.0%}"
            )
    print("* kept; finished: documents through all layers; work: layers run, against all (prefix not counted)")
