"""llama.cpp backend: any GGUF file on the CPU (or wherever llama-cpp-python was built for), quantised weights included.

A group's prefix is decoded once, into sequence 0 of the cache; every document gets a sequence of its own that begins
as a copy of it (the cells are shared, nothing is moved), and several documents run in one batch. The prefix stays in
the cache for the next call, which decodes only what differs: the instruction is kept from query to query. Logits are
asked for at each document's last token alone, and two of their columns are read.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.backends.cores import available_cores
from prorank.backends.llamacpp_library import (
    CHUNK_TOKENS,
    DOCUMENTS,
    check_file,
    file_type,
    forget_errors,
    free,
    load_model,
    open_context,
    redirect_log,
    said,
)
from prorank.scoring import Capabilities
from prorank.types import EncodedGroup

__all__ = ["LlamaCppBackend"]

logger = logging.getLogger(__name__)


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

    prefix_hits = 0
    """The cache keeps one prefix, of which it decodes what differs: see ``decoded_tokens``."""

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
        check_file(path)
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
        redirect_log(self._llama)
        self._llama.llama_backend_init()
        self.label_ids = label_ids
        self.context = context
        self.capabilities = Capabilities(shares_prefixes=True)
        self.decoded_tokens = 0
        """Tokens run through the model so far: a shared prefix counts once."""
        model = load_model(self._llama, path)
        try:
            self.vocabulary: int = self._llama.llama_vocab_n_tokens(self._llama.llama_model_get_vocab(model))
            if not all(0 <= label < self.vocabulary for label in label_ids):
                raise ValueError(
                    f"{path}: its vocabulary has {self.vocabulary} tokens, and the label ids are {tuple(label_ids)}: "
                    "the file belongs to another tokenizer"
                )
            self._context = open_context(self._llama, model, path, threads or available_cores(), context, attention)
        except BaseException:
            self._llama.llama_model_free(model)
            raise
        self._memory = self._llama.llama_get_memory(self._context)
        self._batch = self._llama.llama_batch_init(context, 0, 1)
        self.free = weakref.finalize(self, free, self._llama, self._batch, self._context, model)
        arrays = (self._batch.token, self._batch.pos, self._batch.n_seq_id, self._batch.logits)
        self._tokens, self._positions, counts, self._wanted = (
            np.ctypeslib.as_array(pointer, shape=(context,)) for pointer in arrays
        )
        counts[:] = 1
        trained = int(self._llama.llama_model_n_ctx_train(model))
        self.max_positions: int | None = min(context, trained) if trained > 0 else context
        self.name = f"llamacpp-{file_type(self._llama, model)}"
        self._prefix: list[int] = []  # what sequence 0 holds
        self._lock = threading.Lock()

    def label_logits(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """See :class:`prorank.scoring.Backend`.

        Raises:
            ValueError: a row has no ids, ids that the vocabulary has not, or more tokens than the context holds.
            RuntimeError: llama.cpp failed, or the backend is closed.
        """
        with self._lock:
            if not self.free.alive:
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
            self.free()

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
        room = min(CHUNK_TOKENS, self.context - len(group.prefix_ids))
        rows: list[int] = []
        used = 0
        for row, own in enumerate(group.own_ids):
            if rows and (used + len(own) > room or len(rows) == DOCUMENTS):
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
        forget_errors()
        code = self._llama.llama_decode(self._context, self._batch)
        if code != 0:
            raise RuntimeError(f"{self.name}: llama_decode returned {code} for {count} tokens{said()}")
        self.decoded_tokens += count
        return lasts
