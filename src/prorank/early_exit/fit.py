"""Fits read-outs at early layers: vectors that estimate margins, and how far the estimates may be trusted.

Differences within a query are what ranks, so features and margins are centred by query before a ridge regression. Every
query's estimates come from a regression that has not seen it (cross-fitting); by them the strength of the ridge, the
exits and the tolerances are chosen. Ours; the idea of leaving early is old (e.g. Xin et al., "Early Exiting BERT for
Efficient Document Ranking", SustaiNLP 2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from prorank.backends.native.engine import NativeBackend
from prorank.backends.torch import TorchBackend
from prorank.early_exit.native import features_at
from prorank.early_exit.readouts import LEVELS, Cascade
from prorank.early_exit.scoring import kth_best
from prorank.early_exit.torch import SplitDecoder, features
from prorank.scoring import in_passes, margins_of, plan_batches
from prorank.types import EncodedGroup

__all__ = ["Fit", "Level", "Seen", "collect", "fit_cascade"]

_RIDGES = (0.03, 0.3, 3.0)  # times the mean of the features' squares
_FOLDS = 5
_MOST_EXITS = 4

Estimates = Mapping[int, Sequence[npt.NDArray[np.float32]]]
"""Layer -> per query an estimate of every document's margin."""


class Seen(NamedTuple):
    """One query's documents."""

    features: dict[int, npt.NDArray[np.float16]]
    """Layer -> ``(n, 2 * hidden)``, as a read-out reads them."""
    margins: npt.NDArray[np.float32]
    """``(n,)`` of the whole model."""

    def save(self, path: Path) -> None:
        """Write one numpy file."""
        arrays: dict[str, Any] = {str(layer): values for layer, values in self.features.items()}
        with path.open("wb") as file:
            np.savez(file, margins=self.margins, **arrays)

    @classmethod
    def load(cls, path: Path) -> Seen:
        """Read what :meth:`save` wrote."""
        with np.load(path) as file:
            return cls({int(name): file[name] for name in file.files if name != "margins"}, file["margins"])


class Level(NamedTuple):
    """What a level means on queries that the regression has not seen."""

    tolerances: tuple[float, ...]
    lost: float
    """Mean share of the true top documents that stop early."""
    finished: float
    """Mean share of documents that go through all layers."""
    cost: float
    """Layers run over layers of the whole model, a document."""


class Fit(NamedTuple):
    """The cascade, and what it was chosen by."""

    cascade: Cascade
    levels: dict[str, Level]
    correlation: dict[int, float]
    """Layer -> of estimates and margins within queries; every layer that was collected."""


def collect(
    backend: TorchBackend | NativeBackend, group: EncodedGroup, layers: Sequence[int], batch_tokens: int
) -> Seen:
    """Features at the layers and margins of one query's documents, in one pass.

    Raises:
        ValueError: the model cannot be split.
    """
    layers, count = sorted(layers), len(group.own_ids)
    if isinstance(backend, TorchBackend):
        SplitDecoder(backend, layers)  # says what cannot be split
        read_batch = partial(_torch_features, backend, layers=layers)
        size = backend.model.config.get_text_config().hidden_size
    else:
        read_batch, size = partial(features_at, backend, layers=layers), backend.hidden
    found = {layer: np.zeros((count, 2 * size), dtype=np.float16) for layer in layers}
    margins = np.zeros(count, dtype=np.float32)
    batches = list(plan_batches([group], batch_tokens))
    answers = in_passes(read_batch, [batch.group for batch in batches], backend.capabilities.passes)
    for batch, (read, logits) in zip(batches, answers, strict=True):
        values = margins_of(logits)
        for i, (place, copies) in enumerate(zip(batch.rows, batch.copies, strict=True)):
            for _, row in (place, *copies):
                margins[row] = values[i]
                for layer in layers:
                    found[layer][row] = read[layer][i]
    return Seen(found, margins)


def _torch_features(
    backend: TorchBackend, group: EncodedGroup, layers: Sequence[int]
) -> tuple[dict[int, npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """One batch's features after the layers, and its label logits."""
    passing: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            passing[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [backend.model.base_model.layers[layer - 1].register_forward_hook(keep(layer)) for layer in layers]
    try:
        logits = backend.label_logits(group)  # what a hook keeps last is the documents' pass
    finally:
        for handle in hooks:
            handle.remove()
    lengths = torch.tensor([len(ids) for ids in group.own_ids], device=backend.device)
    return {layer: features(passing[layer], lengths).cpu().numpy() for layer in layers}, logits


def fit_cascade(
    seen: Sequence[Seen],
    layers_in_all: int,
    *,
    top_k: int = 10,
    on_layer: Callable[[int], None] | None = None,
) -> Fit:
    """Read-outs for the exits, of the layers that were collected, by which the fewest layers run at ``fast``.

    Args:
        seen: queries in an order of no meaning.
        on_layer: called after each layer's regression.

    Raises:
        ValueError: fewer than 10 queries with more than ``top_k`` documents.
    """
    usable = [one for one in seen if len(one.margins) > top_k]
    if len(usable) < 10:
        raise ValueError(f"--queries: a read-out needs 10 queries with more than {top_k} documents, got {len(usable)}")
    margins = [one.margins for one in usable]
    weights: dict[int, npt.NDArray[np.float32]] = {}
    estimates: dict[int, list[npt.NDArray[np.float32]]] = {}
    for layer in sorted(usable[0].features):
        weights[layer], estimates[layer] = _regression([one.features[layer] for one in usable], margins)
        if on_layer is not None:
            on_layer(layer)
    fast = next(iter(LEVELS))
    chosen = min(
        (exits for count in range(1, _MOST_EXITS + 1) for exits in itertools.combinations(estimates, count)),
        key=lambda exits: _level(exits, estimates, margins, LEVELS[fast], layers_in_all, top_k).cost,
    )
    levels = {
        name: _level(chosen, estimates, margins, loss, layers_in_all, top_k) for name, loss in LEVELS.items()
    }  # fmt: skip
    cascade = Cascade(
        chosen, np.stack([weights[layer] for layer in chosen]), top_k,
        {name: level.tolerances for name, level in levels.items()},
    )  # fmt: skip
    return Fit(cascade, levels, {layer: _correlation(found, margins) for layer, found in estimates.items()})


def _regression(
    read: Sequence[npt.NDArray[np.float16]], margins: Sequence[npt.NDArray[np.float32]]
) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
    """Weights fitted on all queries, and every query's estimates by weights that have not seen it."""
    x = [_centred(values.astype(np.float32)) for values in read]
    y = [_centred(values) for values in margins]
    folds = [list(range(start, len(x), _FOLDS)) for start in range(min(_FOLDS, len(x)))]
    squares = [_total([x[i].T @ x[i] for i in fold]) for fold in folds]
    products = [_total([x[i].T @ y[i] for i in fold]) for fold in folds]
    all_squares, all_products = _total(squares), _total(products)

    def estimated(ridge: float) -> list[npt.NDArray[np.float32]]:
        found: list[npt.NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(x)
        for fold, square, product in zip(folds, squares, products, strict=True):
            weights = _solved(all_squares - square, all_products - product, ridge)
            for i in fold:
                found[i] = x[i] @ weights
        return found

    tried = {ridge: estimated(ridge) for ridge in _RIDGES}
    best = max(tried, key=lambda ridge: _correlation(tried[ridge], margins))
    return _solved(all_squares, all_products, best), tried[best]


def _total(parts: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _solved(
    squares: npt.NDArray[np.float32], products: npt.NDArray[np.float32], ridge: float
) -> npt.NDArray[np.float32]:
    size = len(squares)
    strength = ridge * np.trace(squares) / size
    solved: npt.NDArray[np.float32] = np.linalg.solve(
        squares.astype(np.float64) + strength * np.eye(size), products.astype(np.float64)
    ).astype(np.float32)
    return solved


def _level(
    exits: Sequence[int], estimates: Estimates, margins: Sequence[npt.NDArray[np.float32]], loss: float, layers: int,
    top_k: int,
) -> Level:  # fmt: skip
    """The tolerances that lose at most this share of the true top documents, an equal part at each exit."""
    best = [np.argsort(-values, kind="stable")[:top_k] for values in margins]
    alive = [np.ones(len(values), dtype=bool) for values in margins]
    tolerances = []
    runs = [float(exits[0]) for _ in margins]
    for layer, until in zip(exits, [*exits[1:], layers], strict=True):
        found = estimates[layer]
        limits = [kth_best(e[kept], top_k) for e, kept in zip(found, alive, strict=True)]
        # How far below the k-th best estimate each truly best document lies: what the tolerance must cover.
        gaps = np.sort(np.concatenate([limit - e[top] for limit, e, top in zip(limits, found, best, strict=True)]))
        # The order statistic of a conformal bound: a new document exceeds it with probability at most ``loss``.
        rank = int(np.ceil((len(gaps) + 1) * (1 - loss / len(exits))))
        tolerances.append(max(0.0, float(gaps[min(rank, len(gaps)) - 1])))
        alive = [
            kept & (e >= limit - tolerances[-1]) for kept, e, limit in zip(alive, found, limits, strict=True)
        ]  # fmt: skip
        runs = [cost + float(kept.mean()) * (until - layer) for cost, kept in zip(runs, alive, strict=True)]
    lost = float(np.mean([1 - kept[top].mean() for kept, top in zip(alive, best, strict=True)]))
    finished = float(np.mean([kept.mean() for kept in alive]))
    return Level(tuple(tolerances), lost, finished, float(np.mean(runs)) / layers)


def _correlation(
    estimates: Sequence[npt.NDArray[np.float32]], margins: Sequence[npt.NDArray[np.float32]]
) -> float:  # fmt: skip
    """Pooled over queries, each centred."""
    found = np.concatenate([_centred(one) for one in estimates])
    wanted = np.concatenate([_centred(one) for one in margins])
    spread = float(np.linalg.norm(found) * np.linalg.norm(wanted))
    return float(found @ wanted) / spread if spread else 0.0


def _centred(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centred: npt.NDArray[np.float32] = values - values.mean(axis=0)
    return centred
