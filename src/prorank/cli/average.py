"""Average adapters that were trained on one base: checkpoints of one run, its blocks, or runs with other seeds.

The result is the mean of the weights that each would be merged to, as an adapter of the summed rank. Measure it before
use, and calibrate it anew: prorank evaluate, prorank calibrate.

  prorank average runs/a/best runs/b/best runs/c/best --out runs/average
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prorank.pipeline.checks import folder_writable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank average``."""
    parser.add_argument("models", nargs="+", metavar="DIR", help="checkpoints with adapters on the same base")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the average")


def run(args: argparse.Namespace) -> int:
    """Average, write, say what it is."""
    from prorank.model.average import average_adapters
    from prorank.model.checkpoint import checkpoint_folder

    folder_writable("--out", args.out)
    out = average_adapters([checkpoint_folder(name) for name in args.models], Path(args.out))
    print(f"the average of {len(args.models)} adapters: {out}")
    return 0
