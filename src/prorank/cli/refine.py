"""Stage 2: teach a (warmed-up) model to order documents finely by its margin.

Goes on from a checkpoint of warmup with the same adapter, or from a plain base with a fresh one. Ctrl-C saves, and the
same command goes on from there. Settings come from --config and from --refine.NAME flags.

  prorank refine --model runs/warmup/best --data DATA/nfcorpus --out runs/refined
  prorank refine --config recipes/refine/smollm2-135m-cpu.toml --refine.losses "[softmax=1, kl=1]" --teacher fused
"""

from __future__ import annotations

import argparse

from prorank.cli._flags import add_field_flags, from_flags
from prorank.cli._tables import read_specs
from prorank.config import add_config_arguments, build_config, overrides, read_config
from prorank.pipeline.refine import RefineRun, refine
from prorank.training.refine.config import RefineConfig

__all__ = ["add_arguments", "read_run", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank refine``."""
    parser.add_argument("--config", metavar="FILE", help="TOML or YAML: flags, a [refine] table, [[datasets]] tables")
    add_field_flags(parser, RefineRun, skip=("refine",))
    add_config_arguments(parser, RefineConfig, "refine")


def read_run(args: argparse.Namespace) -> RefineRun:
    """What the flags and the configuration file ask for.

    Raises:
        ValueError: a flag, key or value does not fit, or ``--data`` or ``--out`` is missing.
    """
    file = read_config(args.config) if args.config else {}
    if not (args.out or file.get("out")):
        raise ValueError("--out is missing: give it here or in --config")
    config = build_config(RefineConfig, "refine", file, overrides(args, "refine"))
    made = {"data": read_specs(args, file), "refine": config}
    return from_flags(RefineRun, args, file, made, tables=("datasets",))


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked before the model is loaded, train, report."""
    found = refine(read_run(args))
    training = found.training
    if found.report is None:  # a process that is not the first
        return 0
    first = found.first_stage.get("nDCG@10", float("nan"))
    for name, value in training.after.items():
        shown = f"   (first stage {first:.4f})" if name == "nDCG@10" else ""
        print(f"{name:26} {training.before.get(name, float('nan')):8.4f} -> {value:.4f}{shown}")
    best = f"{training.best} (step {training.best_step})"
    print(f"{training.stopped} after {training.steps} steps; best: {best}")
    return 0
