"""Stage 1: teach a base model the relevance prompt by GRPO (prompt warmup).

The result is a checkpoint (a LoRA adapter by default) that rank, evaluate, analyze and refine take as it is. Ctrl-C
saves, and the same command goes on from there. Settings come from --config and from --warmup.NAME flags.

  prorank warmup --model smollm2-135m --data DATA/msmarco-sample --out runs/warmup
  prorank warmup --config recipes/warmup/smollm2-135m-cpu.toml --data DATA/msmarco-sample --warmup.group_size 16
"""

from __future__ import annotations

import argparse

from prorank.cli._flags import add_field_flags, from_flags
from prorank.config import add_config_arguments, build_config, overrides, read_config
from prorank.pipeline.warmup import WarmupRun, warmup
from prorank.training.warmup.config import WarmupConfig

__all__ = ["add_arguments", "read_run", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank warmup``."""
    parser.add_argument("--config", metavar="FILE", help="TOML or YAML with the flags below and a [warmup] table")
    add_field_flags(parser, WarmupRun, skip=("warmup",), kinds={"analysis_pairs": int})
    add_config_arguments(parser, WarmupConfig, "warmup")


def read_run(args: argparse.Namespace) -> WarmupRun:
    """What the flags and the configuration file ask for.

    Raises:
        ValueError: a flag, key or value does not fit, or ``--data`` or ``--out`` is missing.
    """
    file = read_config(args.config) if args.config else {}
    config = build_config(WarmupConfig, "warmup", file, overrides(args, "warmup"))
    return from_flags(WarmupRun, args, file, {"warmup": config})


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked before the model is loaded, train, report."""
    found = warmup(read_run(args))
    for change in found.changes:
        name, before, after, low, high = change
        print(f"{name:26} {before:8.3f} -> {after:.3f}  [{low:.3f}, {high:.3f}]")
    if found.report is not None:
        training = found.training
        print(f"{training.stopped} after {training.steps} steps; checkpoint: {training.last}; report: {found.report}")
    return 0
