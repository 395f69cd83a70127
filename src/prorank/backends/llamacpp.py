"""llama.cpp backend: any GGUF file on the CPU (or wherever llama-cpp-python was built for), quantised weights included.

A group's prefix is decoded once, into sequence 0 of the cache; every document gets a sequence of its own that begins
as a copy of it (the cells are shared, nothing is moved), and several documents run in one batch. The prefix stays in
the cache for the next call, which decodes only what differs: the instruction is kept from query to query. Logits are
asked for at each document's last token alone, and two of their columns are read.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.backends.cores import available_cores
from prorank.types import EncodedGroup

__all__ = ["LlamaCppBackend"]

logger = logging.getLogger(__name__)

_CHUNK_TOKENS = 512
"""Own tokens in one batch: a batch's tokens are multiplied with all its keys and masked afterwards, so that joining
more documents than fill the processor costs more than it gives. Also llama.cpp's own physical batch."""
_DOCUMENTS = 31
"""Documents in one batch at most; with the prefix's that is 32 sequences."""
_F32, _F16 = 0, 1  # ggml's type numbers

_errors: deque[str] = deque(maxlen=4)
_log_callback: Any = None  # ctypes holds no reference of its own


class LlamaCppBackend:
    """Scores with a model in a GGUF file. One call at a time: calls from several threads wait for each other.

    llama.cpp's log goes to this module's logger, level debug, for the whole process.

    Args:
        gguf: the file.
        label_ids: (irrelevant, relevant) token ids.
        threads: CPU threads; default: the cores this process may use.
        context: tokens that the cache holds, a group's prefix and the documents of one batch together; memory grows
            with it.
        attention: ``f32`` keeps keys and values in float32, so that a margin does not depend on the batch; ``f16`` is
            llama.cpp's usual way, flash attention over float16, in half the memory. Default: f32.

    Raises:
        ValueError: the file is missing, damaged or of no use here, or a number is out of range.
        ImportError: llama-cpp-python is not installed.
    """

    shares_prefixes = True

    def __init__(
        self,
        gguf: Path | str,
        label_ids: tuple[int, int],
        *,
        threads: int | None = None,
        context: int = 4096,
        attention: Literal["f32", "f16"] = "f32",
    ) -> None:
        path = Path(gguf)
        _check_file(path)
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        if context < 2:
            raise ValueError(f"context must be at least 2 tokens, got {context}")
        if attention not in ("f32", "f16"):
            raise ValueError(f"attention must be 'f32' or 'f16', got {attention!r}")
        self._llama: Any = require("llama_cpp", extra="llamacpp")
        if not hasattr(self._llama, "llama_memory_seq_cp"):
            raise ImportError(
                f"llama-cpp-python {self._llama.__version__} is too old: pip install 'prorank[llamacpp]' --upgrade"
            )
        _redirect_log(self._llama)
        self._llama.llama_backend_init()
        self.label_ids = label_ids
        self.context = context
        self.decoded_tokens = 0
        """Tokens run through the model so far: a shared prefix counts once."""
        model = _load_model(self._llama, path)
        try:
            self.vocabulary: int = self._llama.llama_vocab_n_tokens(self._llama.llama_model_get_vocab(model))
            if not all(0 <= label < self.vocabulary for label in label_ids):
                raise ValueError(
                    f"{path}: its vocabulary has {self.vocabulary} tokens, and the label ids are {tuple(label_ids)}: "
                    "the file belongs to another tokenizer"
                )
            self._context = _open_context(self._llama, model, path, threads or available_cores(), context, attention)
        except BaseException:
            self._llama.llama_model_free(model)
            raise
        self._memory = self._llama.llama_get_memory(self._context)
        self._batch = self._llama.llama_batch_init(context, 0, 1)
        self._free = weakref.finalize(self, _free, self._llama, self._batch, self._context, model)
        arrays = (self._batch.token, self._batch.pos, self._batch.n_seq_id, self._batch.logits)
        self._tokens, self._positions, counts, self._wanted = (
            np.ctypeslib.as_array(pointer, shape=(context,)) for pointer in arrays
        )
        counts[:] = 1
        trained = int(self._llama.llama_model_n_ctx_train(model))
        self.max_positions: int | None = min(context, trained) if trained > 0 else context
        self.name = f"llamacpp-{_file_type(self._llama, model)}"
        self._prefix: list[int] = []  # what sequence 0 holds
        self._lock = threading.Lock()

    def label_logits(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """See :class:`prorank.scoring.Backend`.

        Raises:
            ValueError: a row has no ids, ids that the vocabulary has not, or more tokens than the context holds.
            RuntimeError: llama.cpp failed, or the backend is closed.
        """
        with self._lock:
            if not self._free.alive:
                raise RuntimeError(f"{self.name}: this backend is closed")
            self._check(group)
            logits = np.zeros((len(group.own_ids), 2), dtype=np.float32)
            try:
                if group.own_ids:
                    self._hold_prefix(list(group.prefix_ids))
                for rows in self._chunks(group):
                    logits[rows] = self._run(group, rows)
            except BaseException:  # the cache may hold half of something
                self._llama.llama_memory_clear(self._memory, False)
                self._prefix = []
                raise
        return logits

    def close(self) -> None:
        """Free the model and the cache; the backend is of no use afterwards. Calling it again does nothing."""
        with self._lock:
            self._free()

    def __enter__(self) -> LlamaCppBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, group: EncodedGroup) -> None:
        for row, own in enumerate(group.own_ids):
            if not own:
                raise ValueError(f"own_ids[{row}] is empty: there is no last token to read")
            if len(group.prefix_ids) + len(own) > self.context:
                raise ValueError(
                    f"own_ids[{row}]: prompt of {len(group.prefix_ids)} + {len(own)} tokens, but the context holds "
                    f"{self.context}; raise context or lower max_length"
                )
        for ids in (group.prefix_ids, *group.own_ids):
            if ids and not 0 <= min(ids) <= max(ids) < self.vocabulary:
                raise ValueError(f"token ids must lie in 0 to {self.vocabulary - 1}, got {min(ids)} to {max(ids)}")

    def _chunks(self, group: EncodedGroup) -> Iterator[list[int]]:
        """Rows that run together, in their order."""
        room = min(_CHUNK_TOKENS, self.context - len(group.prefix_ids))
        rows: list[int] = []
        used = 0
        for row, own in enumerate(group.own_ids):
            if rows and (used + len(own) > room or len(rows) == _DOCUMENTS):
                yield rows
                rows, used = [], 0
            rows.append(row)
            used += len(own)
        if rows:
            yield rows

    def _hold_prefix(self, prefix: list[int]) -> None:
        """Make sequence 0 hold the prefix, keeping what it begins with already."""
        common = next((i for i, (a, b) in enumerate(zip(prefix, self._prefix, strict=False)) if a != b), None)
        if common is None:
            common = min(len(prefix), len(self._prefix))
        if not self._llama.llama_memory_seq_rm(self._memory, 0, common, -1):  # a state that cannot be cut
            self._llama.llama_memory_clear(self._memory, False)
            common = 0
        self._prefix = prefix
        if common < len(prefix):
            self._decode([(0, common, prefix[common:])], outputs=False)

    def _run(self, group: EncodedGroup, rows: list[int]) -> npt.NDArray[np.float32]:
        start = len(group.prefix_ids)
        parts = [(place + 1, start, group.own_ids[row]) for place, row in enumerate(rows)]
        if start:
            for sequence, *_ in parts:
                self._llama.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
        logits = np.zeros((len(rows), 2), dtype=np.float32)
        for place, last in enumerate(self._decode(parts, outputs=True)):
            row = self._llama.llama_get_logits_ith(self._context, last)
            logits[place] = row[self.label_ids[0]], row[self.label_ids[1]]
        for sequence, *_ in parts:
            self._llama.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return logits

    def _decode(self, parts: Sequence[tuple[int, int, Sequence[int]]], *, outputs: bool) -> list[int]:
        """Run (sequence, first position, ids) as one batch; where in it each part's last token stands."""
        count, lasts = 0, []
        for sequence, position, ids in parts:
            end = count + len(ids)
            self._tokens[count:end] = ids
            self._positions[count:end] = np.arange(position, position + len(ids))
            self._wanted[count:end] = False
            for place in range(count, end):
                self._batch.seq_id[place][0] = sequence
            count = end
            lasts.append(end - 1)
        if outputs:
            self._wanted[lasts] = True
        self._batch.n_tokens = count
        _errors.clear()
        code = self._llama.llama_decode(self._context, self._batch)
        if code != 0:
            raise RuntimeError(f"{self.name}: llama_decode returned {code} for {count} tokens{_said()}")
        self.decoded_tokens += count
        return lasts


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"gguf {path}: no such file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"gguf {path}: not a GGUF file")


def _load_model(llama: Any, path: Path) -> Any:
    _errors.clear()
    model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
    if not model:
        raise ValueError(f"gguf {path}: llama.cpp cannot load it; is the file complete?{_said()}")
    return model


def _open_context(llama: Any, model: Any, path: Path, threads: int, context: int, attention: str) -> Any:
    settings = llama.llama_context_default_params()
    wanted = {
        "n_ctx": context,
        "n_batch": context,
        "n_ubatch": min(_CHUNK_TOKENS, context),
        "n_seq_max": _DOCUMENTS + 1,
        "n_outputs_max": _DOCUMENTS + 1,
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
    _errors.clear()
    opened = llama.llama_init_from_model(model, settings)
    if not opened:
        raise ValueError(f"gguf {path}: llama.cpp opens no context of {context} tokens{_said()}")
    if not llama.llama_get_memory(opened):
        llama.llama_free(opened)
        raise ValueError(f"gguf {path}: the model has no cache; a causal language model is needed")
    return opened


def _free(llama: Any, batch: Any, context: Any, model: Any) -> None:
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    llama.llama_model_free(model)


def _file_type(llama: Any, model: Any) -> str:
    """The precision of most weights, such as ``q8_0``, from the file's metadata."""
    from gguf import LlamaFileType

    buffer = ctypes.create_string_buffer(32)
    llama.llama_model_meta_val_str(model, b"general.file_type", buffer, len(buffer))
    try:
        return LlamaFileType(int(buffer.value)).name.removeprefix("MOSTLY_").removeprefix("ALL_").lower()
    except ValueError:
        return "gguf"


def _redirect_log(llama: Any) -> None:
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


def _said() -> str:
    return f" (llama.cpp: {_errors[0]})" if _errors else ""
