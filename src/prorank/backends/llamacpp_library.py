"""llama.cpp as a library: a model and its context opened from a GGUF file, and its log kept for error messages."""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from pathlib import Path
from typing import Any

__all__ = [
    "CHUNK_TOKENS",
    "DOCUMENTS",
    "check_file",
    "file_type",
    "forget_errors",
    "free",
    "load_model",
    "open_context",
    "redirect_log",
    "said",
]

logger = logging.getLogger(__name__)

CHUNK_TOKENS = 512
"""Own tokens in one batch: a batch's tokens are multiplied with all its keys and masked afterwards, so that joining
more documents than fill the processor costs more than it gives. Also llama.cpp's own physical batch."""
DOCUMENTS = 31
"""Documents in one batch at most; with the prefix's that is 32 sequences."""
_F32, _F16 = 0, 1  # ggml's type numbers

_errors: deque[str] = deque(maxlen=4)
_log_callback: Any = None  # ctypes holds no reference of its own


def check_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"gguf {path}: no such file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"gguf {path}: not a GGUF file")


def load_model(llama: Any, path: Path) -> Any:
    forget_errors()
    model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
    if not model:
        raise ValueError(f"gguf {path}: llama.cpp cannot load it; is the file complete?{said()}")
    return model


def open_context(llama: Any, model: Any, path: Path, threads: int, context: int, attention: str) -> Any:
    settings = llama.llama_context_default_params()
    wanted = {
        "n_ctx": context,
        "n_batch": context,
        "n_ubatch": min(CHUNK_TOKENS, context),
        "n_seq_max": DOCUMENTS + 1,
        "n_outputs_max": DOCUMENTS + 1,
        "n_threads": threads,
        "n_threads_batch": threads,
        "flash_attn_type": int(attention == "f16"),
        "flash_attn": attention == "f16",  # its name in llama-cpp-python 0.3.16
        "type_k": _F16 if attention == "f16" else _F32,
        "type_v": _F16 if attention == "f16" else _F32,
        "kv_unified": True,  # one pool of cells: a copied prefix costs none
        "swa_full": True,
        "embeddings": False,
        "no_perf": True,
    }
    for name, value in wanted.items():
        if hasattr(settings, name):  # the settings' names change between versions of llama.cpp
            setattr(settings, name, value)
    forget_errors()
    opened = llama.llama_init_from_model(model, settings)
    if not opened:
        raise ValueError(f"gguf {path}: llama.cpp opens no context of {context} tokens{said()}")
    if not llama.llama_get_memory(opened):
        llama.llama_free(opened)
        raise ValueError(f"gguf {path}: the model has no cache; a causal language model is needed")
    return opened


def free(llama: Any, batch: Any, context: Any, model: Any) -> None:
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    llama.llama_model_free(model)


def file_type(llama: Any, model: Any) -> str:
    """The precision of most weights, such as ``q8_0``, from the file's metadata."""
    from gguf import LlamaFileType

    buffer = ctypes.create_string_buffer(32)
    llama.llama_model_meta_val_str(model, b"general.file_type", buffer, len(buffer))
    try:
        return LlamaFileType(int(buffer.value)).name.removeprefix("MOSTLY_").removeprefix("ALL_").lower()
    except ValueError:
        return "gguf"


def redirect_log(llama: Any) -> None:
    global _log_callback
    if _log_callback is not None:
        return

    def keep(level: int, text: bytes, _: Any) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level == 4 and line:  # GGML_LOG_LEVEL_ERROR
            _errors.append(line)
        logger.debug("%s", line)

    _log_callback = llama.llama_log_callback(keep)
    llama.llama_log_set(_log_callback, None)


def forget_errors() -> None:
    """Before a call whose errors are to be told."""
    _errors.clear()


def said() -> str:
    """The first error that llama.cpp logged since, in brackets; empty where there is none."""
    return f" (llama.cpp: {_errors[0]})" if _errors else ""
