"""Which prompts a warmup step learns from: queries with a positive and negatives, balanced, easy before hard.

Draw number i is a pure function of (seed, i): nothing but the next number has to be saved, and neither the number of
processes nor the accumulation changes what is drawn. It knows no model.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import NamedTuple

from prorank.data.collection import Collection
from prorank.training.epochs import epoch_place
from prorank.training.held_out import is_held_out
from prorank.training.warmup.config import WarmupConfig
from prorank.types import Run

__all__ = ["PromptSampler", "QueryPrompts"]


class QueryPrompts(NamedTuple):
    """A query with documents to be judged against it."""

    query_id: str
    query: str
    documents: tuple[str, ...]
    labels: tuple[int, ...]
    """1 relevant, 0 not, a document."""
    kinds: tuple[str, ...]
    """``positive``, ``random`` or ``hard``, a document."""
    instruction: str | None = None
    """None: the template's own."""


class PromptSampler:
    """Draws training prompts, and lists held-out ones.

    Args:
        collection: documents, queries, judgments.
        candidates: a first stage's lists, where hard negatives are asked for (or held-out ones to be judged).

    Raises:
        ValueError: no query has a positive in the corpus; judgments outside {0, 1} without a threshold; hard
            negatives without candidates; too few documents or queries.
    """

    def __init__(self, collection: Collection, config: WarmupConfig, candidates: Run | None = None) -> None:
        self.collection, self.config = collection, config
        graded = sorted({r for judged in collection.qrels.values() for r in judged.values() if r not in (0, 1)})
        threshold = config.relevance_threshold
        if graded and threshold is None:
            raise ValueError(
                f"relevance_threshold: judgments of {collection.name} are outside {{0, 1}} ({graded[:4]}); "
                "say from which relevance on a document counts as relevant"
            )
        threshold = 1 if threshold is None else threshold
        self._positives = {
            query_id: found
            for query_id, judged in collection.qrels.items()
            if (found := [d for d, r in judged.items() if r >= threshold and d in collection.documents])
        }
        if not self._positives:
            raise ValueError(
                f"data: no query of {collection.name} has a relevant document in the corpus (threshold {threshold})"
            )
        self._doc_ids = list(collection.documents)
        if len(self._doc_ids) <= config.negatives + 1:
            raise ValueError(f"data: {collection.name} has {len(self._doc_ids)} documents, too few for negatives")
        if config.hard_negatives and candidates is None:
            raise ValueError("hard_negatives: a first stage is needed to draw them from")
        lists = collection.without_own(candidates) if candidates is not None else None
        self._hard = {q: self._window(q, lists) for q in self._positives} if lists is not None else {}
        self.train_ids = [q for q in self._positives if not is_held_out(q, config.held_out)]
        self.held_out_ids = [q for q in self._positives if is_held_out(q, config.held_out)]
        if not self.train_ids or not self.held_out_ids:
            raise ValueError(
                f"held_out: {config.held_out} of {len(self._positives)} queries leaves {len(self.train_ids)} to train "
                f"on and {len(self.held_out_ids)} to evaluate on; both are needed"
            )

    def draw(self, number: int, *, hard: bool) -> QueryPrompts:
        """The prompts of draw ``number`` (from 0); every query once before any comes again."""
        query_id = self.train_ids[epoch_place(number, len(self.train_ids), str(self.config.seed))]
        rng = random.Random(f"{self.config.seed}:draw:{number}")
        wanted = self.config.hard_negatives if hard else 0
        pool = self._hard.get(query_id, [])
        hard_ids = rng.sample(pool, min(wanted, len(pool)))
        random_ids = self._random(query_id, self.config.negatives - len(hard_ids), rng, taken=set(hard_ids))
        return self._prompts(query_id, rng.choice(self._positives[query_id]), random_ids, hard_ids)

    def held_out(self, limit: int | None = None) -> list[QueryPrompts]:
        """Held-out queries, each with a positive, a random passage and, where candidates are known, a hard one."""
        found = []
        for query_id in sorted(self.held_out_ids, key=lambda q: hashlib.sha256(q.encode()).hexdigest())[:limit]:
            rng = random.Random(f"held-out:{query_id}")
            pool = self._hard.get(query_id, [])
            hard_ids = rng.sample(pool, min(1, len(pool)))
            random_ids = self._random(query_id, 1, rng, taken=set(hard_ids))
            found.append(self._prompts(query_id, self._positives[query_id][0], random_ids, hard_ids))
        return found

    def _window(self, query_id: str, candidates: Run) -> list[str]:
        judged = self.collection.qrels.get(query_id, {})
        listed = list(candidates.get(query_id, {}))[self.config.hard_rank_from - 1 : self.config.hard_rank_to]
        return [d for d in listed if judged.get(d, 0) < 1 and self._differs(query_id, d)]

    def _random(self, query_id: str, count: int, rng: random.Random, taken: set[str]) -> list[str]:
        judged = self.collection.qrels.get(query_id, {})
        chosen: list[str] = []
        for _ in range(100 * (count + 1)):
            if len(chosen) == count:
                break
            doc_id = rng.choice(self._doc_ids)
            if doc_id not in taken and judged.get(doc_id, 0) < 1 and self._differs(query_id, doc_id):
                chosen.append(doc_id)
                taken.add(doc_id)
        return chosen

    def _differs(self, query_id: str, doc_id: str) -> bool:
        """No copy of a positive under another id is a negative, nor the query's own document where it is left out."""
        if doc_id == query_id and doc_id in self.collection.own_documents:
            return False
        content = self.collection.documents[doc_id].content
        return all(self.collection.documents[p].content != content for p in self._positives[query_id])

    def _prompts(
        self, query_id: str, positive: str, random_ids: Sequence[str], hard_ids: Sequence[str]
    ) -> QueryPrompts:
        doc_ids = [positive, *random_ids, *hard_ids]
        return QueryPrompts(
            query_id,
            self.collection.queries[query_id].text,
            tuple(self.collection.documents[d].content for d in doc_ids),
            (1, *([0] * (len(doc_ids) - 1))),
            ("positive", *(["random"] * len(random_ids)), *(["hard"] * len(hard_ids))),
        )
