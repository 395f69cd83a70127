"""Warmup, mining, refine, evaluation and a report by one command, on anybody's queries and documents.

Nothing but --data is needed: a fifth of the queries is kept for the test, chosen by the hash of their ids, and never
trained on. Every step is skipped where it has ended and resumed where it was interrupted. The report says whether
training helped, with intervals and a test.

  prorank train --data my_folder --out runs/mine
  prorank train --config recipes/train/smollm2-135m-cpu.toml
"""

from __future__ import annotations

import argparse

from prorank.cli._flags import add_field_flags, from_flags
from prorank.cli._tables import read_blocks, read_specs
from prorank.config import add_config_arguments, build_config, overrides, read_config
from prorank.pipeline.train import TrainRun, train
from prorank.training.refine.config import RefineConfig
from prorank.training.warmup.config import WarmupConfig

__all__ = ["add_arguments", "read_run", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank train``."""
    parser.add_argument(
        "--config", metavar="FILE",
        help="TOML or YAML: flags, [warmup] and [refine] tables, [[datasets]], and [[blocks]] of refine settings that "
        "follow one another",
    )  # fmt: skip
    add_field_flags(parser, TrainRun, skip=("warmup", "refine", "blocks"))
    add_config_arguments(parser, WarmupConfig, "warmup")
    add_config_arguments(parser, RefineConfig, "refine")


def read_run(args: argparse.Namespace) -> TrainRun:
    """What the flags and the configuration file ask for.

    Raises:
        ValueError: a flag, key or value does not fit.
    """
    file = read_config(args.config) if args.config else {}
    flags = overrides(args, "refine")
    blocks = read_blocks(file, flags)
    made = {
        "data": read_specs(args, file),
        "warmup": build_config(WarmupConfig, "warmup", file, overrides(args, "warmup")),
        "refine": blocks[0].refine if blocks else build_config(RefineConfig, "refine", file, flags),
        "blocks": blocks,
    }
    return from_flags(TrainRun, args, file, made, tables=("datasets",), other_tables=False)


def run(args: argparse.Namespace) -> int:
    """Check what can be checked, then step by step."""
    if report := train(read_run(args)).report:
        print(report)
    return 0
