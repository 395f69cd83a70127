"""Fits read-outs at early layers: a vector that estimates margins, and how far the estimate may be trusted.

Differences within a query are what ranks, so states and margins are centred by query before a ridge regression; the
strength of the ridge, the exit and the tolerances are chosen on queries that the regression has not seen. Ours; the
idea of leaving early is old (e.g. Xin et al., "Early Exiting BERT for Efficient Document Ranking", SustaiNLP 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from prorank.backends.segments import HalfWay, SplitDecoder
from prorank.backends.torch import TorchBackend
from prorank.cascade import LEVELS, Cascade
from prorank.scoring import margins_of, plan_batches
from prorank.types import EncodedGroup

__all__ = ["Exit", "Seen", "choose", "collect", "fit_exits"]

_RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0)


class Seen(NamedTuple):
    """One query's documents."""

    states: dict[int, npt.NDArray[np.float32]]
    """Exit layer -> ``(n, hidden)``, normalised as at inference."""
    margins: npt.NDArray[np.float32]
    """``(n,)`` of the whole model."""


class Exit(NamedTuple):
    """What leaving after a layer would mean, on queries that the regression has not seen."""

    cascade: Cascade
    kept: dict[str, float]
    """Level -> mean share of documents that go through all layers."""
    cost: dict[str, float]
    """Level -> layers run over layers of the whole model, a document."""
    correlation: float
    """Of estimates and margins within queries."""


def collect(backend: TorchBackend, group: EncodedGroup, layers: Sequence[int], batch_tokens: int) -> Seen:
    """States at the exits and margins of one query's documents, in one pass.

    Raises:
        ValueError: the model cannot be split.
    """
    for layer in layers:
        SplitDecoder(backend, layer)  # says what cannot be split
    decoder = backend.model.base_model
    passing: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            passing[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    count, size = len(group.own_ids), backend.model.config.get_text_config().hidden_size
    found = {layer: np.zeros((count, size), dtype=np.float32) for layer in layers}
    margins = np.zeros(count, dtype=np.float32)
    hooks = [decoder.layers[layer - 1].register_forward_hook(keep(layer)) for layer in layers]
    try:
        for batch in plan_batches([group], batch_tokens):
            values = margins_of(backend.label_logits(batch.group))  # what a hook keeps last is the documents' pass
            lengths = torch.tensor([len(ids) for ids in batch.group.own_ids], device=backend.device)
            states = {layer: HalfWay(passing[layer], lengths, None).last().cpu().numpy() for layer in layers}
            for i, (place, copies) in enumerate(zip(batch.rows, batch.copies, strict=True)):
                for _, row in (place, *copies):
                    margins[row] = values[i]
                    for layer in layers:
                        found[layer][row] = states[layer][i]
    finally:
        for handle in hooks:
            handle.remove()
    return Seen(found, margins)


def fit_exits(seen: Sequence[Seen], layers_in_all: int, *, top_k: int = 10, held_out: float = 0.3) -> list[Exit]:
    """A read-out for every layer that was collected.

    Args:
        seen: queries in an order of no meaning; the last ``held_out`` of them choose ridge and tolerances.

    Raises:
        ValueError: fewer than 10 queries with more than ``top_k`` documents.
    """
    usable = [one for one in seen if len(one.margins) > top_k]
    if len(usable) < 10:
        raise ValueError(f"--queries: a read-out needs 10 queries with more than {top_k} documents, got {len(usable)}")
    cut = len(usable) - max(3, round(held_out * len(usable)))
    train, test = usable[:cut], usable[cut:]
    found = []
    for layer in usable[0].states:
        x = np.concatenate([_centred(one.states[layer]) for one in train]).astype(np.float64)
        y = np.concatenate([_centred(one.margins) for one in train]).astype(np.float64)
        squares, product = x.T @ x, x.T @ y
        scale = np.trace(squares) / len(squares)
        best: tuple[float, npt.NDArray[np.float32]] | None = None
        for ridge in _RIDGES:
            weights = np.linalg.solve(squares + ridge * scale / 100 * np.eye(len(squares)), product).astype(np.float32)
            r = _correlation(test, layer, weights)
            if best is None or r > best[0]:
                best = (r, weights)
        assert best is not None
        found.append(_exit(test, layer, best[1], best[0], layers_in_all, top_k))
    return found


def choose(exits: Sequence[Exit], level: str = "fast") -> Exit:
    """The exit that runs the fewest layers at a level."""
    return min(exits, key=lambda one: one.cost[level])


def _exit(
    test: Sequence[Seen], layer: int, weights: npt.NDArray[np.float32], correlation: float, layers: int, top_k: int
) -> Exit:
    estimates = [one.states[layer] @ weights for one in test]
    # How far below the k-th best estimate each truly best document lies: what the tolerance must cover.
    gaps = np.sort(
        np.concatenate(
            [
                np.partition(e, -top_k)[-top_k] - e[np.argsort(-one.margins, kind="stable")[:top_k]]
                for one, e in zip(test, estimates, strict=True)
            ]
        )
    )
    tolerances, kept, cost = {}, {}, {}
    for level, loss in LEVELS.items():
        # The order statistic of a conformal bound: a new document exceeds it with probability at most ``loss``.
        rank = int(np.ceil((len(gaps) + 1) * (1 - loss)))
        tolerance = max(0.0, float(gaps[min(rank, len(gaps)) - 1]))
        shares = [float((e >= np.partition(e, -top_k)[-top_k] - tolerance).mean()) for e in estimates]
        tolerances[level], kept[level] = tolerance, float(np.mean(shares))
        cost[level] = layer / layers + kept[level] * (1 - layer / layers)
    return Exit(Cascade(layer, weights, top_k, tolerances), kept, cost, correlation)


def _correlation(test: Sequence[Seen], layer: int, weights: npt.NDArray[np.float32]) -> float:
    estimates = np.concatenate([_centred(one.states[layer] @ weights) for one in test])
    margins = np.concatenate([_centred(one.margins) for one in test])
    spread = float(np.linalg.norm(estimates) * np.linalg.norm(margins))
    return float(estimates @ margins) / spread if spread else 0.0


def _centred(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centred: npt.NDArray[np.float32] = values - values.mean(axis=0)
    return centred
