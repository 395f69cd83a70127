"""Measures of ranked lists, through `ir_measures`; ties and missing queries are settled before it sees anything.

A run arrives here in rank order: the caller has put equal margins in the order of the first stage (margin, then
first-stage rank). What `ir_measures` gets is the rank alone, as strictly falling scores, so that no evaluator's own
tie rule (trec_eval's is by document id) can change a figure. Every judged query counts: missing from the run it is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.scoring import rank_order
from prorank.types import Qrels, Run

__all__ = ["DEFAULT_MEASURES", "DEFINITIONS", "Measured", "count_ties", "measure", "parse_measures", "ranked"]

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "AP", "R@100", "P@10", "Judged@10")
"""nDCG@10 first: what a report compares by."""

DEFINITIONS = {
    "nDCG@k": "sum over the first k ranks of relevance / log2(rank + 1), divided by that sum of the ideal order of all "
    "judged documents; gains are the grades themselves (Järvelin and Kekäläinen, TOIS 2002)",
    "RR@k": "1 / rank of the first relevant document, 0 where none is among the first k",
    "AP": "mean over all relevant documents of the precision at their rank; one that is not listed gives 0",
    "R@k": "relevant documents among the first k / all relevant ones: what the first stage lets a reranker find",
    "P@k": "relevant documents among the first k / k",
    "Judged@k": "judged documents among the first k / k: low values mean that the other measures are guesses",
}
"""The default measures; each is computed for a query and averaged over all judged queries, a missing one counting 0."""


@dataclass(frozen=True)
class Measured:
    """Values of one run."""

    values: Mapping[str, Mapping[str, float]]
    """measure -> query_id -> value, for every judged query, in the order of the judgments."""
    missing: tuple[str, ...]
    """Judged queries that the run lacks or lists nothing for; each counts 0."""
    unjudged: tuple[str, ...]
    """Queries of the run without judgments; they count in nothing."""

    def mean(self, name: str) -> float:
        """Mean over all judged queries."""
        return float(np.mean(list(self.values[name].values()))) if self.values[name] else 0.0


def parse_measures(names: Sequence[str], min_relevance: int = 1) -> dict[str, Any]:
    """Measure names as `ir_measures` objects: ``nDCG@k``, ``RR@k``, ``AP``, ``R@k``, ``P@k``, ``Judged@k`` and others.

    Args:
        min_relevance: the least relevance that counts as relevant in binary measures (TREC DL: 2); a name that sets
            its own (``RR(rel=2)@10``) keeps it.

    Raises:
        ValueError: a name is unknown, or comes twice.
    """
    ir_measures = require("ir_measures", extra="evaluate")
    parsed: dict[str, Any] = {}
    for name in names:
        try:
            found = ir_measures.parse_measure(name)
        except (ValueError, NameError) as error:
            raise ValueError(f"measures: {name!r} is not a measure that ir_measures knows ({error})") from None
        if min_relevance != 1 and "rel" in found.SUPPORTED_PARAMS and "rel" not in found.params:
            found = found(rel=min_relevance)
        if name in parsed:
            raise ValueError(f"measures: {name!r} comes twice")
        parsed[name] = found
    if not parsed:
        raise ValueError("measures: name at least one")
    return parsed


def measure(run: Run, qrels: Qrels, names: Sequence[str] = DEFAULT_MEASURES, *, min_relevance: int = 1) -> Measured:
    """Values of every measure for every judged query.

    Args:
        run: each query's documents in rank order (the mapping's order; scores are not looked at).
        qrels: the judgments; negative relevance counts as 0.

    Raises:
        ValueError: there are no judgments, or a measure is unknown.
    """
    ir_measures = require("ir_measures", extra="evaluate")
    measures = parse_measures(names, min_relevance)
    if not qrels:
        raise ValueError("qrels: there are no judgments to measure against")
    by_rank = {
        query_id: {doc_id: float(len(run[query_id]) - rank) for rank, doc_id in enumerate(run[query_id])}
        for query_id in qrels
        if run.get(query_id)
    }
    judged = {q: {d: max(r, 0) for d, r in judgments.items()} for q, judgments in qrels.items()}
    values = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    if by_rank:
        names_of = {found: name for name, found in measures.items()}
        for row in ir_measures.iter_calc(list(measures.values()), judged, by_rank):
            if row.query_id in judged:
                values[names_of[row.measure]][row.query_id] = float(row.value)
    return Measured(
        values,
        missing=tuple(q for q in qrels if not run.get(q)),
        unjudged=tuple(q for q in run if q not in qrels),
    )


def ranked(doc_ids: Sequence[str], margins: npt.ArrayLike) -> dict[str, float]:
    """doc_id -> margin from best to worst; equal margins keep the order of ``doc_ids``, the first stage's."""
    margins = np.asarray(margins, dtype=np.float32)
    if margins.shape != (len(doc_ids),):
        raise ValueError(f"margins: expected one for each of {len(doc_ids)} documents, got shape {margins.shape}")
    return {doc_ids[i]: float(margins[i]) for i in rank_order(margins)}


def count_ties(margins: npt.ArrayLike) -> int:
    """Documents whose margin equals that of a document ranked before them: n minus the number of distinct margins."""
    margins = np.asarray(margins, dtype=np.float32)
    return int(margins.size - np.unique(margins).size)
