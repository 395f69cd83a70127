"""THE scoring path: token ids in, float32 margins out, whatever the backend.

Everything that scores (library, CLI, server, evaluation, training's held-out checks) comes through
:func:`score_groups`. This module cuts the work into batches by tokens, sends them to a :class:`Backend`, takes the
margin in float32 and puts it back in input order. It knows no text, no tokenizer and no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from prorank.types import EncodedGroup

__all__ = [
    "DEFAULT_BATCH_TOKENS",
    "DEFAULT_BATCH_TOKENS_GPU",
    "Backend",
    "Batch",
    "Capabilities",
    "Margins",
    "NonFiniteMarginError",
    "SplittingBackend",
    "cut_rows",
    "fair_batch",
    "in_passes",
    "margins_of",
    "plan_batches",
    "probability",
    "rank_order",
    "score_groups",
]

DEFAULT_BATCH_TOKENS = 1024
"""Own tokens (padding counted) in one forward pass, on a CPU: the activations then stay in its caches. On 2 cores, with
SmolLM2-135M, 4096 was 1.5 times slower in bfloat16 and 1.3 times in float32."""
DEFAULT_BATCH_TOKENS_GPU = 16_384
"""On an accelerator, which larger batches keep busy."""

_PADDED_SHARE = 1 / 16  # of a row; a batch that is half full takes none that would be padded by more

Margins = npt.NDArray[np.float32]
Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do besides label logits, and at what size it works best. The defaults are the least."""

    passes: int = 1
    """Batches that it computes at a time; so many threads ask it."""
    batch_tokens: int = DEFAULT_BATCH_TOKENS
    """Own tokens, padding counted, of the batches that suit it."""
    shares_prefixes: bool = False
    """A group's prefix is computed once; otherwise with every row."""
    layers: int = 0
    """Layers of the model, where early exits may lie between them; 0: it runs only as a whole."""
    answers: bool = False
    """Has ``last_logits(group)``, ``(n, vocabulary)``, and ``last_hidden(group)``, ``(n, hidden)``, both float32."""
    holds_model: bool = False
    """Its attribute ``model`` is the transformers model, which can be saved, exported, and generate."""
    weights_bytes: int = 0
    """Size of the weights; 0: unknown."""
    folder: Path | None = None
    """The exported folder that it runs, if any."""
    splits: bool = False
    """Has ``label_logits_on(cores, group)``: several of its cores (there are ``passes``) share one batch."""
    workers: bool = False
    """Has ``workers`` (:class:`prorank.workers.Workers`), which compute, and which ``close()`` ends."""
    level: str = ""
    """The instruction set that it was compiled for, where that was chosen for this processor."""


@runtime_checkable
class Backend(Protocol):
    """What computes label logits. It receives token ids and knows nothing of text, labels' meaning or ranking."""

    name: str
    """Short name for records and messages, such as ``torch-cpu-bf16``."""
    capabilities: Capabilities
    """What it can do besides; callers ask here, never for the class or for an attribute that may not be there."""
    prefix_hits: int
    """Groups so far whose prefix had been computed for an earlier one; stays 0 where none is kept, or nobody counts."""

    def label_logits(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """Logits of the two label words after each prompt, shape ``(n, 2)`` float32, row i for ``own_ids[i]``.

        Column 0 belongs to the "irrelevant" word, column 1 to the "relevant" one. The rows come as one batch:
        the caller has already cut the work to size. Where ``capabilities.passes`` is above 1, so many threads ask at a
        time.
        """
        ...


class SplittingBackend(Backend, Protocol):
    """One with ``capabilities.splits``."""

    def label_logits_on(self, cores: int, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """:meth:`label_logits`, on so many cores where they are free: the same numbers."""
        ...


class NonFiniteMarginError(RuntimeError):
    """A backend returned NaN or infinity: the weights are broken, or the precision overflowed."""


class Batch(NamedTuple):
    """One forward pass: a group, and where each of its rows belongs."""

    group: EncodedGroup
    rows: tuple[tuple[int, int], ...]
    """Per row of ``group`` the (group index, row index) it answers for."""
    copies: tuple[tuple[tuple[int, int], ...], ...]
    """Per row of ``group`` further (group index, row index) places with the very same ids: scored once."""


def margins_of(label_logits: npt.NDArray[np.float32]) -> Margins:
    """logit("1") - logit("0") in float32: ``(n, 2)`` -> ``(n,)``.

    Raises:
        NonFiniteMarginError: any logit is NaN or infinite.
    """
    logits = np.asarray(label_logits, dtype=np.float32)
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise NonFiniteMarginError(
            f"{bad} of {len(logits)} label logits are not finite: the model's weights hold NaN or infinity, or the "
            "precision overflows (try dtype float32)"
        )
    return logits[:, 1] - logits[:, 0]


def probability(margins: npt.ArrayLike, slope: float = 1.0, intercept: float = 0.0) -> npt.NDArray[np.float64]:
    """sigmoid(slope * margin + intercept), Platt scaling: for people to read, never to rank by."""
    z = slope * np.asarray(margins, dtype=np.float64) + intercept
    return np.exp(-np.logaddexp(0.0, -z))


def rank_order(margins: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Indices from best to worst; equal margins keep their input order, that is, the first stage's rank."""
    return np.argsort(-np.asarray(margins, dtype=np.float32), kind="stable")


def plan_batches(groups: Sequence[EncodedGroup], batch_tokens: int = DEFAULT_BATCH_TOKENS) -> Iterator[Batch]:
    """Cut groups into batches of at most ``batch_tokens`` own tokens, padding counted, rows sorted by length.

    A group large enough keeps its whole prefix shared. Small groups are joined: their batch shares only the ids that
    all their prefixes start with (the instruction, as a rule), and the rest of each prefix becomes its rows' own.
    Identical rows of one group are computed once. A row longer than ``batch_tokens`` gets a batch of its own.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
    small: list[int] = []
    for index, group in enumerate(groups):
        if not group.own_ids:
            continue
        own = sum(map(len, group.own_ids))
        saved = (len(group.prefix_ids) - group.instruction_length) * (len(group.own_ids) - 1)
        if own + saved >= batch_tokens or len(groups) == 1:
            yield from _cut(group, [(index, row) for row in range(len(group.own_ids))], batch_tokens)
        else:
            small.append(index)
    for members in _joinable(groups, small):
        shared = _common_prefix([groups[i].prefix_ids for i in members])
        if len(members) > 1:  # several prefixes in one batch: only the instruction's keys and values are worth keeping
            shared = min(shared, min(groups[i].instruction_length for i in members))
        first = groups[members[0]]
        joined = EncodedGroup(
            first.prefix_ids[:shared],
            [[*groups[i].prefix_ids[shared:], *own] for i in members for own in groups[i].own_ids],
            min(shared, first.instruction_length),
        )
        yield from _cut(joined, [(i, row) for i in members for row in range(len(groups[i].own_ids))], batch_tokens)


def _joinable(groups: Sequence[EncodedGroup], small: Sequence[int]) -> list[list[int]]:
    """Small groups by instruction; a group whose prefix is worth sharing (three rows or more) stays alone."""
    by_instruction: dict[tuple[int, ...], list[int]] = {}
    alone = []
    for i in small:
        if len(groups[i].own_ids) >= 3:
            alone.append([i])
        else:
            head = tuple(groups[i].prefix_ids[: groups[i].instruction_length])
            by_instruction.setdefault(head, []).append(i)
    return alone + list(by_instruction.values())


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    ordered = sorted(map(list, sequences))
    shortest, longest = ordered[0], ordered[-1]  # first and last differ soonest
    for i, (a, b) in enumerate(zip(shortest, longest, strict=False)):
        if a != b:
            return i
    return min(len(shortest), len(longest))


def _cut(group: EncodedGroup, places: Sequence[tuple[int, int]], batch_tokens: int) -> Iterator[Batch]:
    unique: dict[tuple[int, ...], list[int]] = {}
    for row, own in enumerate(group.own_ids):
        unique.setdefault(tuple(own), []).append(row)
    ordered = sorted(unique.items(), key=lambda item: len(item[0]), reverse=True)
    for rows in cut_rows([len(ids) for ids, _ in ordered], batch_tokens):
        chunk = ordered[rows]
        yield Batch(
            EncodedGroup(group.prefix_ids, [ids for ids, _ in chunk], group.instruction_length),
            tuple(places[same[0]] for _, same in chunk),
            tuple(tuple(places[row] for row in same[1:]) for _, same in chunk),
        )


def cut_rows(lengths: Sequence[int], batch_tokens: int) -> Iterator[slice]:
    """Rows of descending lengths, cut into batches of at most ``batch_tokens``, padding counted; one row at least."""
    start = 0
    while start < len(lengths):
        most = max(batch_tokens // max(lengths[start], 1), 1)
        end = start + _worth_padding(lengths[start : start + most], most // 2)
        yield slice(start, end)
        start = end


def _worth_padding(lengths: Sequence[int], half: int) -> int:
    """How many rows, by descending lengths, make one batch: beyond ``half`` of one, none that is much shorter."""
    least = lengths[0] * (1 - _PADDED_SHARE)
    return next((i for i in range(half + 1, len(lengths)) if lengths[i] < least), len(lengths))


def score_groups(
    backend: Backend,
    groups: Sequence[EncodedGroup],
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    on_scored: Callable[[int], None] | None = None,
) -> list[Margins]:
    """Margins of every row of every group, each array in its group's row order.

    Args:
        on_scored: called after each batch with the number of rows it answered (for progress bars).

    Raises:
        NonFiniteMarginError: the model returned NaN or infinity.
    """
    results = [np.zeros(len(group.own_ids), dtype=np.float32) for group in groups]
    batches, answers = _answers(backend, groups, batch_tokens)
    for batch, logits in zip(batches, answers, strict=True):
        done = 0
        for margin, (g, r), copies in zip(margins_of(logits), batch.rows, batch.copies, strict=True):
            for group_index, row in ((g, r), *copies):
                results[group_index][row] = margin
                done += 1
        if on_scored is not None:
            on_scored(done)
    return results


def _answers(
    backend: Backend, groups: Sequence[EncodedGroup], batch_tokens: int
) -> tuple[list[Batch], Iterator[npt.NDArray[np.float32]]]:
    """Batches and their label logits. A core computes a batch; those that are left over share what comes last."""
    passes, splits = backend.capabilities.passes, backend.capabilities.splits
    batches = list(plan_batches(groups, batch_tokens))
    if not (splits and batches and passes // len(batches) > 1):
        tokens = sum(len(ids) for group in groups for ids in group.own_ids)
        batches = list(plan_batches(groups, fair_batch(batch_tokens, tokens, passes)))
    last = len(batches) % passes
    if not splits or not last or passes // last < 2:
        return batches, in_passes(backend.label_logits, [batch.group for batch in batches], passes)
    on_several = partial(cast(SplittingBackend, backend).label_logits_on, passes // last)
    first = in_passes(backend.label_logits, [batch.group for batch in batches[:-last]], passes)
    return batches, chain(first, in_passes(on_several, [batch.group for batch in batches[-last:]], passes))


def fair_batch(batch_tokens: int, tokens: int, passes: int) -> int:
    """Tokens of a batch when there are ``tokens`` in all: little work is cut smaller, so that all passes have some."""
    return batch_tokens if passes < 2 else max(1, min(batch_tokens, -(-tokens // passes)))


def in_passes(compute: Callable[[Task], Answer], tasks: Sequence[Task], passes: int) -> Iterator[Answer]:
    """What is computed of each task, in their order, ``passes`` of them at a time."""
    if min(passes, len(tasks)) < 2:
        yield from map(compute, tasks)
        return
    with ThreadPoolExecutor(passes, thread_name_prefix="prorank-pass") as pool:
        yield from pool.map(compute, tasks)
