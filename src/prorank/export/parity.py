"""How an export's scores agree with the checkpoint's: the report that every export ends in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Parity", "Scores", "compare", "kendall_tau", "parity_texts", "write_parity"]


@dataclass(frozen=True)
class Parity:
    """How an export's margins agree with the checkpoint's in float32 on the same pairs."""

    pairs: int
    max_difference: float
    """Largest absolute difference of a margin."""
    mean_difference: float
    """Mean absolute difference."""
    spread: float
    """Standard deviation of the reference's margins: what the differences are to be seen against."""
    kendall_tau: float
    """Mean over queries of Kendall's tau-b between the two orders; 1 is the same order."""
    same_best: float
    """Share of queries whose first document is the same."""


class Scores(Protocol):
    """The part of a reranker that a comparison needs."""

    def margins(self, query: str, documents: Sequence[str]) -> npt.NDArray[np.float32]: ...


def compare(reference: Scores, exported: Scores, texts: Mapping[str, Sequence[str]]) -> Parity:
    """Score every query's documents with both.

    Args:
        texts: query -> at least two documents.
    """
    ours: list[npt.NDArray[np.float32]] = []
    theirs: list[npt.NDArray[np.float32]] = []
    for query, documents in texts.items():
        ours.append(reference.margins(query, list(documents)))
        theirs.append(exported.margins(query, list(documents)))
    differences = np.abs(np.concatenate(ours) - np.concatenate(theirs))
    taus = [kendall_tau(a, b) for a, b in zip(ours, theirs, strict=True)]
    return Parity(
        len(differences),
        float(differences.max()),
        float(differences.mean()),
        float(np.concatenate(ours).std()),
        float(np.mean(taus)),
        float(np.mean([a.argmax() == b.argmax() for a, b in zip(ours, theirs, strict=True)])),
    )


def kendall_tau(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Kendall's tau-b of two rows of scores; pairs are counted one by one, so it is for lists, not for millions.

    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945). NaN where a row is all ties.
    """
    left, right = (np.sign(np.subtract.outer(x, x)) for x in (np.asarray(a, np.float64), np.asarray(b, np.float64)))
    pairs = np.sqrt(np.square(left).sum() * np.square(right).sum())
    return float((left * right).sum() / pairs) if pairs else float("nan")


def write_parity(folder: Path, parity: Parity, reference: str) -> None:
    """Keep the report beside the weights, as ``parity.json``."""
    from prorank.files import write_atomic

    write_atomic(folder / "parity.json", json.dumps({"reference": reference, **asdict(parity)}, indent=2) + "\n")


def parity_texts(queries: int = 6, documents: int = 20) -> dict[str, list[str]]:
    """Queries with documents of very different lengths, from the built-in collection: no download, the same everywhere
    for one version of Python."""
    from prorank.data.load import load_collection

    collection = load_collection("stdlib", "test")
    texts = [document.content for document in collection.documents.values()]
    chosen = list(collection.queries.values())[:: max(1, len(collection.queries) // queries)][:queries]
    step = max(1, len(texts) // (queries * documents))
    return {
        query.text: [texts[(i * documents + j) * step % len(texts)] for j in range(documents)]
        for i, query in enumerate(chosen)
    }
