"""The flags by which every command names a model: spelled once, here."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, get_args

from prorank.prompt.encoder import LongDocuments

if TYPE_CHECKING:
    from prorank.reranker import Reranker

__all__ = ["add_model_arguments", "load_reranker", "positive"]


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def share(text: str) -> float:
    """An argparse type: a number above 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and below 1, got {text!r}")
    return value


def add_model_arguments(parser: argparse.ArgumentParser, *, model: bool = True) -> None:
    """Add ``--model`` (unless the command has its own) and the flags that say how to load and run it."""
    group = parser.add_argument_group("model")
    if model:
        group.add_argument(
            "--model",
            metavar="NAME",
            help="built-in name, checkpoint folder, hub id or .gguf file (default: the built-in reranker)",
        )
    group.add_argument("--adapter", metavar="DIR", help="peft LoRA folder to merge on top of the model")
    group.add_argument("--template", metavar="NAME", help="template preset or JSON file (default: the model's own)")
    group.add_argument(
        "--backend",
        default="auto",
        help="auto (native for built-in rerankers, else by the folder), torch, native, openvino, onnx, llamacpp or "
        "remote:MODEL@URL (default: %(default)s)",
    )
    group.add_argument("--device", help="cpu, cuda or mps (default: the best there is; others than cpu are PyTorch's)")
    group.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="precision, in PyTorch (default there: bfloat16 where the hardware multiplies it, else float32)",
    )
    group.add_argument("--max-length", type=positive, metavar="N", help="tokens of a whole prompt (default: 512)")
    group.add_argument("--query-max-length", type=positive, metavar="N", help="tokens of the query")
    group.add_argument(
        "--long-documents",
        choices=get_args(LongDocuments),
        help="keep the beginning, or an excerpt by the query's words, or score overlapping windows and take the best "
        "(default: the checkpoint's, else truncate)",
    )
    group.add_argument(
        "--batch-tokens",
        type=positive,
        metavar="N",
        help="own tokens in one forward pass (default: 1024, native 256, OpenVINO 128 or 256, on a GPU 16384)",
    )
    group.add_argument("--verbose", action="store_true", help="say which engine runs the model")
    group.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all cores)")
    group.add_argument("--instruction", metavar="TEXT", help="what relevance means here (default: the template's)")


def load_reranker(args: argparse.Namespace, model: str | None = None) -> Reranker:
    """The reranker that the parsed flags describe; ``model`` overrides ``--model``."""
    import gc

    from prorank.reranker import Reranker

    started = time.perf_counter()
    gc.disable()  # hardly anything imported or loaded here becomes garbage; looking for it only costs time
    try:
        reranker = _load(Reranker, args, model)
    finally:
        gc.enable()
    if args.verbose:
        seconds = time.perf_counter() - started
        print(f"prorank: {reranker.name} runs on {reranker.backend.name}, loaded in {seconds:.1f} s", file=sys.stderr)
    return reranker


def _load(reranker: type[Reranker], args: argparse.Namespace, model: str | None) -> Reranker:
    return reranker.from_pretrained(
        model if model is not None else getattr(args, "model", None),
        adapter=args.adapter,
        template=args.template,
        backend=args.backend,
        device=args.device,
        dtype=args.dtype,
        max_length=args.max_length,
        query_max_length=args.query_max_length,
        long_documents=args.long_documents,
        batch_tokens=args.batch_tokens,
        threads=args.threads,
    )
