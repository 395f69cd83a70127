"""The paper's preliminary analysis, for any reranker or base: prompt understanding and expressiveness.

Prompts are pairs of a query with a relevant document and with a negative, balanced; expressiveness is measured on the
candidates that a first stage gives some queries, as they are. Everything is drawn by a seed, so that base, warmed-up
and refined models are asked the same prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from prorank.data.collection import Collection
from prorank.evaluate import expressiveness as ex
from prorank.evaluate.greedy import greedy_answers
from prorank.evaluate.understanding import Prompted, frequent_malformed, understanding
from prorank.reranker import Reranker
from prorank.types import EncodedGroup, Run

__all__ = ["Analysis", "Pair", "Sample", "analyze", "draw_sample"]


class Pair(NamedTuple):
    """One prompt's material."""

    query_id: str
    doc_id: str
    relevant: bool


class Sample(NamedTuple):
    """What every model is asked."""

    pairs: Sequence[Pair]
    """Balanced: each query's relevant document is followed by its negative."""
    lists: Mapping[str, Sequence[str]]
    """query_id -> candidates, for expressiveness."""


@dataclass(frozen=True)
class Analysis:
    """What was found about one model."""

    name: str
    description: Mapping[str, Any]
    understanding: Mapping[str, tuple[float, float, float]]
    """Measure -> (value, low, high)."""
    malformed: Sequence[tuple[str, int]]
    expressiveness: Mapping[str, float]
    reliability: Sequence[ex.ReliabilityBin]
    prompts: Sequence[Prompted]
    margins: Mapping[str, Sequence[float]]
    """"relevant" and "not relevant or not judged" -> the candidates' margins."""

    def payload(self) -> dict[str, Any]:
        """JSON data for a record."""
        return {
            "model": self.name,
            "description": dict(self.description),
            "prompts": len(self.prompts),
            "understanding": {
                name: {"value": value, "low": low, "high": high}
                for name, (value, low, high) in self.understanding.items()
            },
            "malformed": [{"text": text, "count": count} for text, count in self.malformed],
            "candidates": sum(map(len, self.margins.values())),
            "expressiveness": dict(self.expressiveness),
            "reliability": [{"given": b.given, "observed": b.observed, "count": b.pairs} for b in self.reliability],
        }


def draw_sample(
    collection: Collection,
    candidates: Run,
    *,
    pairs: int = 200,
    queries: int = 20,
    top_k: int = 30,
    negatives: str = "first-stage",
    min_relevance: int = 1,
    seed: int = 0,
) -> Sample:
    """Draw the prompts and lists.

    Args:
        candidates: a first stage's lists; negatives are drawn from them, without the documents judged relevant.
        pairs: prompts in all, half of them relevant; queries give one of each, in further rounds where needed.
        queries: how many queries' candidates to score.
        top_k: candidates a query.
        negatives: ``first-stage`` (hard ones), or ``random`` documents of the collection (easy ones).

    Raises:
        ValueError: a number is out of range, or no query has both a relevant document and a negative.
    """
    if pairs < 2 or queries < 1 or top_k < 2:
        raise ValueError(f"pairs, queries and candidates must be at least 2, 1 and 2, got {pairs}, {queries}, {top_k}")
    if negatives not in ("first-stage", "random"):
        raise ValueError(f"negatives must be first-stage or random, got {negatives!r}")
    rng = random.Random(seed)
    everything, own = list(collection.documents), collection.own_documents
    candidates = collection.without_own(candidates)
    pools: dict[str, tuple[list[str], list[str]]] = {}
    for query_id, judged in collection.qrels.items():
        relevant = [d for d, r in judged.items() if r >= min_relevance and d in collection.documents]
        if negatives == "random":
            drawn = rng.sample(everything, min(len(everything), 50))
        else:
            drawn = list(candidates.get(query_id, {}))
        others = [d for d in drawn if judged.get(d, 0) < min_relevance and not (d == query_id and d in own)]
        if relevant and others:
            pools[query_id] = (rng.sample(relevant, len(relevant)), rng.sample(others, len(others)))
    if not pools:
        raise ValueError(f"data: no query of {collection.name} has both a relevant document and a negative")
    order = rng.sample(sorted(pools), len(pools))
    found: list[Pair] = []
    for place in range(max(max(len(r), len(o)) for r, o in pools.values())):
        for query_id in order:
            relevant, others = pools[query_id]
            if place < min(len(relevant), len(others)) and len(found) + 2 <= pairs:
                found += [Pair(query_id, relevant[place], True), Pair(query_id, others[place], False)]
    listed = [query_id for query_id in order if len(candidates.get(query_id, {})) >= 2][:queries]
    return Sample(found, {query_id: list(candidates[query_id])[:top_k] for query_id in listed})


def analyze(
    reranker: Reranker,
    collection: Collection,
    sample: Sample,
    *,
    name: str | None = None,
    instruction: str | None = None,
    min_relevance: int = 1,
    on_done: Callable[[int], None] | None = None,
) -> Analysis:
    """Ask one model everything in the sample.

    Args:
        on_done: called after each query with the number of prompts and candidates done since.

    Raises:
        ValueError: the backend computes no full-vocabulary logits.
    """
    prompts, states = _ask(reranker, collection, sample.pairs, instruction, on_done)
    scores: dict[str, npt.NDArray[np.float32]] = {}
    truth: dict[str, npt.NDArray[np.bool_]] = {}
    for query_id, doc_ids in sample.lists.items():
        texts = [collection.documents[doc_id].content for doc_id in doc_ids]
        scores[query_id] = reranker.margins(collection.queries[query_id].text, texts, instruction=instruction)
        judged = collection.qrels.get(query_id, {})
        truth[query_id] = np.array([judged.get(doc_id, 0) >= min_relevance for doc_id in doc_ids])
        if on_done is not None:
            on_done(len(doc_ids))
    measures, bins, margins = _expressiveness(reranker, scores, truth, states)
    return Analysis(
        name or reranker.name,
        {**reranker.describe(), "instruction": instruction},
        understanding(prompts),
        frequent_malformed(prompts),
        measures,
        bins,
        prompts,
        margins,
    )


def _ask(
    reranker: Reranker,
    collection: Collection,
    pairs: Sequence[Pair],
    instruction: str | None,
    on_done: Callable[[int], None] | None,
) -> tuple[list[Prompted], npt.NDArray[np.float32] | None]:
    """Every pair's answer, and the last-token states ``(n, hidden)`` where the backend gives them."""
    encoder, backend = reranker.encoder, cast("Any", reranker.backend)
    by_query: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        by_query.setdefault(pair.query_id, []).append(place)
    prompts: dict[int, Prompted] = {}
    states: dict[int, npt.NDArray[np.float32]] = {}
    for query_id, places in by_query.items():
        texts = [collection.documents[pairs[place].doc_id].content for place in places]
        encoded = reranker.encode(collection.queries[query_id].text, texts, instruction)
        rows = [encoded.row_document.index(document) for document in range(len(texts))]  # a document's first window
        group = EncodedGroup(
            encoded.group.prefix_ids, [encoded.group.own_ids[row] for row in rows], encoded.group.instruction_length
        )
        hidden = backend.last_hidden(group) if backend.capabilities.answers else None
        for row, (place, answer) in enumerate(zip(places, greedy_answers(reranker, group), strict=True)):
            text = encoder.tokenizer.decode(answer.completion_ids, skip_special_tokens=False)
            prompts[place] = Prompted.of(
                pairs[place].relevant, answer.completion_ids, text, answer.logits, encoder.label_ids, encoder.end_id
            )
            if hidden is not None:
                states[place] = hidden[row]
        if on_done is not None:
            on_done(len(places))
    ordered = [prompts[place] for place in range(len(pairs))]
    return ordered, np.stack([states[place] for place in range(len(pairs))]) if states else None


def _expressiveness(
    reranker: Reranker,
    scores: Mapping[str, npt.NDArray[np.float32]],
    truth: Mapping[str, npt.NDArray[np.bool_]],
    states: npt.NDArray[np.float32] | None,
) -> tuple[dict[str, float], list[ex.ReliabilityBin], dict[str, list[float]]]:
    pooled = np.concatenate(list(scores.values()) or [np.zeros(0, np.float32)])
    relevant = np.concatenate(list(truth.values()) or [np.zeros(0, bool)])
    probabilities = reranker.probability(pooled)
    bins = ex.reliability_bins(probabilities, relevant)
    measures = {
        "distinct_share": ex.distinct_share(scores),
        "tie_rate": ex.tie_rate(scores),
        "score_entropy": ex.score_entropy(probabilities),
        "spread": ex.spread(scores),
        "within_share": ex.within_share(scores),
        "d_prime": ex.d_prime(pooled[relevant], pooled[~relevant]),
        "auc": ex.auc(pooled[relevant], pooled[~relevant]),
        "query_auc": ex.query_auc(scores, truth),
        "calibration_error": ex.expected_calibration_error(bins),
    }
    if states is not None:
        measures |= {"effective_rank": ex.effective_rank(states), "mean_cosine": ex.mean_cosine(states)}
    margins = {"relevant": pooled[relevant].tolist(), "not relevant or not judged": pooled[~relevant].tolist()}
    return measures, bins, margins
