"""Score many pairs of queries and documents, in several processes here or on a Ray cluster.

Reads rows (query_id, query, doc_id, text) of Parquet or JSON-lines files, or the documents that a TREC run lists, and
writes parts with margins to --out as they are finished. Run the same command again to go on after a kill, a crash or a
full disk: nothing is scored twice, nothing is lost.

  prorank score --input pairs/*.parquet --out scored --processes 4
  prorank score --run bm25.trec --data my-folder --out scored
  prorank score --input pairs/*.parquet --out scored --engine ray --address auto --concurrency 8
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from prorank.cli._flags import add_field_flags, given
from prorank.cli._model import add_model_arguments, load_options
from prorank.pipeline.checks import folder_writable, models_known
from prorank.progress import progress_bar, system_progress

if TYPE_CHECKING:
    from prorank.batch.job import OnPairs

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank score``."""
    from prorank.batch.job import ScoreRun
    from prorank.config import attribute_docs

    texts = attribute_docs(ScoreRun)
    parser.add_argument("--input", nargs="+", metavar="FILE", help=texts["input"].rstrip("."))
    add_field_flags(parser, ScoreRun, skip=("input", "instruction", "restart"), kinds={"retries": int})
    parser.add_argument("--restart", action="store_true", help=texts["restart"].rstrip("."))
    add_model_arguments(parser, several=True)


def run(args: argparse.Namespace) -> int:
    """Check, score, and say what was done."""
    from prorank.batch.job import ScoreRun, score_pairs

    if args.out is None:
        raise ValueError("--out DIR is missing: the folder for the parts")
    folder_writable("--out", args.out)
    options = load_options(args)
    models_known(options, [args.model])
    with contextlib.ExitStack() as shown:
        on_rows = shown.enter_context(progress_bar("reading", None, shown=sys.stderr.isatty()))

        def on_pairs(total: int) -> OnPairs:
            shown.close()
            return shown.enter_context(system_progress("pairs"))("scoring", total)

        done = score_pairs(ScoreRun(**given(ScoreRun, args)), options, on_rows=on_rows, on_pairs=on_pairs)
    found = f", {done.found} of the parts there before" if done.found else ""
    rate = f"; {done.scored_rows} scored in {done.seconds:.1f} s, {done.scored_rows / done.seconds:.2f} pairs/s"
    work = f"{_counted(done.rows, 'pair')} in {_counted(done.parts, 'part')}"
    print(f"{args.out}: {work}{found}{rate if done.scored_rows else ''}")
    return 0


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
