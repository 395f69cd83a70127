"""How a model is loaded and run: one definition for `Reranker.from_pretrained` and for every command's flags.

The attribute docstrings are the help texts of both. It imports neither a model nor PyTorch.
"""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Concatenate, Literal, ParamSpec, TypeVar

from prorank.config import attribute_docs
from prorank.prompt.encoder import LongDocuments
from prorank.prompt.template import PromptTemplate

__all__ = ["LoadOptions", "Precision", "keywords_of"]

Precision = Literal["auto", "float32", "bfloat16", "float16"]

P = ParamSpec("P")
C = TypeVar("C")
O = TypeVar("O")  # noqa: E741
R = TypeVar("R")


@dataclass(frozen=True)
class LoadOptions:
    """Which model, and how to load and run it; None: the checkpoint's own value, or the best available."""

    model: str | os.PathLike[str] | None = None
    """Built-in name (`prorank models` lists them), checkpoint folder, hub id or .gguf file (default: the built-in
    reranker)."""
    _: KW_ONLY
    adapter: str | os.PathLike[str] | None = None
    """Peft LoRA folder to merge on top of the model."""
    template: str | PromptTemplate | None = None
    """Template preset or JSON file (default: the model's own, else ours)."""
    backend: str = "auto"
    """What runs the model: auto (native for the built-in rerankers, else by the folder's contents), torch, native,
    openvino, onnx, llamacpp, seq-cls, or remote:MODEL@URL for a server with the same weights (OpenAI-compatible, or
    vLLM's /classify; the model then provides only the tokenizer and template)."""
    device: str | None = None
    """One of cpu, cuda and mps (default: the best available; all but cpu need PyTorch)."""
    dtype: Precision | None = None
    """Precision, in PyTorch (default there: bfloat16 if the hardware multiplies it natively, else float32)."""
    max_length: int | None = None
    """Token limit of a whole prompt (default: the checkpoint's, else 512)."""
    query_max_length: int | None = None
    """Token limit of the query (default: the checkpoint's, else a share of the whole)."""
    long_documents: LongDocuments | None = None
    """Of a longer document, truncate keeps the beginning, excerpt adds the sentences that share the query's words,
    max_window scores overlapping windows and takes the best (default: the checkpoint's, else truncate)."""
    batch_tokens: int | None = None
    """Own tokens per forward pass (default: 1024, native 256, OpenVINO 128 or 256, on a GPU 16384)."""
    threads: int | None = None
    """CPU threads (default: all cores; of several processes, each its share of them)."""
    processes: int | None = None
    """Processes that share the work, each with its own copy of the model (default: this one alone)."""
    devices: Sequence[str] | None = None
    """Devices that share the work, with a process for each, such as cuda:0 and cuda:1."""
    pair_cache: str | os.PathLike[str] | None = None
    """Keep the scores of pairs for when they come again: memory (memory:N for N pairs), or a SQLite file that lasts
    (default: keep none)."""
    local_files_only: bool = False
    """Use only what is on this machine; fetch nothing."""
    share_prefix: bool = True
    """Share the prompt's prefix between documents; False computes whole prompts: the same margins, more slowly."""


def keywords_of(options: Callable[P, O]) -> Callable[[Callable[[C, O], R]], Callable[Concatenate[C, P], R]]:
    """A method that takes an options object -> one that takes the object's fields as arguments.

    The new method's signature and the ``Args`` of its docstring are the fields'.
    """

    def decorate(method: Callable[[C, O], R]) -> Callable[Concatenate[C, P], R]:
        def spelled_out(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return method(self, options(*args, **kwargs))

        own = inspect.signature(method)
        first = next(iter(own.parameters.values()))
        fields = inspect.signature(options).parameters.values()
        spelled_out.__signature__ = own.replace(parameters=[first, *fields])  # type: ignore[attr-defined]
        for name in ("__module__", "__name__", "__qualname__"):
            setattr(spelled_out, name, getattr(method, name))
        spelled_out.__doc__ = (method.__doc__ or "").replace("OPTIONS\n", _arguments(options))
        return spelled_out

    return decorate


def _arguments(options: object) -> str:
    assert isinstance(options, type)
    lines = [f"{name}: {text}" for name, text in attribute_docs(options).items()]
    indent = " " * 12
    wrapped = [textwrap.fill(line, 120, initial_indent=indent, subsequent_indent=indent + "    ") for line in lines]
    return "\n".join(wrapped).lstrip() + "\n"
