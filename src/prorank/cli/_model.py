"""The flags by which every command names a model: those of :class:`prorank.model.options.LoadOptions`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from prorank.cli._flags import _help, add_field_flags, given, positive, share
from prorank.config import attribute_docs
from prorank.model.options import LoadOptions

if TYPE_CHECKING:
    from prorank.reranker import Reranker

__all__ = ["add_model_arguments", "load_options", "load_reranker", "positive", "share"]

_LIBRARY_ONLY = ("local_files_only", "share_prefix")
"""Options that no command needs."""
_SEVERAL = ("processes", "devices")
"""Options of commands whose work several processes may share."""


def add_model_arguments(parser: argparse.ArgumentParser, *, model: bool = True, several: bool = False) -> None:
    """Add ``--model`` (unless the command has its own) and the flags that say how to load and run it.

    Args:
        several: also those that share the work among processes.
    """
    group = parser.add_argument_group("model")
    add_field_flags(group, LoadOptions, skip=(*_LIBRARY_ONLY, *_SEVERAL, *(() if model else ("model",))))
    if several:
        texts = attribute_docs(LoadOptions)
        group.add_argument("--processes", type=positive, metavar="N", help=_help(texts["processes"], None))
        group.add_argument("--devices", type=_names, metavar="A,B", help=_help(texts["devices"], None))
        parser.set_defaults(several=True)
    group.add_argument("--verbose", action="store_true", help="say which engine runs the model")
    group.add_argument("--instruction", metavar="TEXT", help="what relevance means here (default: the template's)")


def load_options(args: argparse.Namespace, model: str | None = None) -> LoadOptions:
    """The options that the parsed flags describe; ``model`` overrides ``--model`` (which may name several)."""
    named = getattr(args, "model", None)
    name = named if model is None and isinstance(named, str) else model
    skip = (*_LIBRARY_ONLY, "model", *(() if getattr(args, "several", False) else _SEVERAL))
    return LoadOptions(name, **given(LoadOptions, args, skip=skip))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def load_reranker(args: argparse.Namespace, model: str | None = None) -> Reranker:
    """The reranker that the parsed flags describe; ``model`` overrides ``--model``."""
    import gc

    from prorank.reranker import Reranker

    started = time.perf_counter()
    gc.disable()  # hardly anything imported or loaded here becomes garbage; looking for it only costs time
    try:
        reranker = Reranker.load(load_options(args, model))
    finally:
        gc.enable()
    if args.verbose:
        seconds = time.perf_counter() - started
        level = reranker.backend.capabilities.level
        engine = f"{reranker.backend.name} ({level})" if level else reranker.backend.name
        print(f"prorank: {reranker.name} runs on {engine}, loaded in {seconds:.1f} s", file=sys.stderr)
    return reranker
