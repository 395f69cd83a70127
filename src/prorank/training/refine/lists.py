"""Which lists stage 2 learns from: a relevant document and its rivals, with judgments, a teacher's scores, or both.

Draw number i of a mixture is a pure function of (seed, i): nothing but the next number has to be saved. It knows no
model.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prorank.data.collection import Collection
from prorank.training.epochs import epoch_place
from prorank.training.held_out import is_held_out
from prorank.training.refine.config import RefineConfig
from prorank.types import Run

__all__ = ["ListSource", "Mixture", "RankingList"]


class RankingList(NamedTuple):
    """A query and documents to be ordered."""

    dataset: str
    query_id: str
    query: str
    instruction: str | None
    """None: the template's own."""
    documents: tuple[str, ...]
    relevance: tuple[float, ...] | None
    """Graded relevance from 0, a document, NaN where it is unknown; None for an unlabelled query."""
    teacher: tuple[float, ...] | None
    """A teacher's scores, a document; None without a teacher."""


class ListSource:
    """The lists of one collection.

    Args:
        candidates: a first stage's lists: where hard rivals come from; without them all rivals are random.
        teacher: scores of candidates; those it lacks count as the lowest it gave for the query.
        instruction: given to every query of this collection.
        weight: of this source in a mixture.
        cap: at most so many lists of one query in an epoch; None: one for each of its relevant documents.
        teacher_positives: of a query without a relevant document so many of the teacher's best count as relevant.
        dropped: query ids that must not be trained on (shared with an evaluation set).

    Raises:
        ValueError: no query has what is needed: a relevant document in the corpus (among the candidates, where the
            configuration asks for that), or candidates with teacher scores.
    """

    def __init__(
        self,
        collection: Collection,
        config: RefineConfig,
        *,
        candidates: Run | None = None,
        teacher: Run | None = None,
        instruction: str | None = None,
        weight: float = 1.0,
        cap: int | None = None,
        teacher_positives: int = 0,
        dropped: frozenset[str] = frozenset(),
    ) -> None:
        self.collection, self.config = collection, config
        self.candidates = collection.without_own(candidates or {})
        self.instruction, self.weight = instruction, weight
        if not weight > 0:
            raise ValueError(f"weight: expected more than 0 for {collection.name}, got {weight}")
        self._teacher = {q: _scaled(s, config.teacher_normalise) for q, s in (teacher or {}).items() if s}
        self._doc_ids = list(collection.documents)
        if len(self._doc_ids) <= config.list_size:
            raise ValueError(
                f"data: {collection.name} has {len(self._doc_ids)} documents, too few for lists of {config.list_size}"
            )
        self._grades = {
            query_id: grades
            for query_id, judged in collection.qrels.items()
            if query_id in collection.queries
            and (grades := {d: self._grade(r) for d, r in judged.items() if d in collection.documents})
            and max(grades.values()) > 0
        }
        unlabelled = [q for q in self._teacher if q not in self._grades and q in collection.queries]
        if teacher_positives:
            for query_id in unlabelled:
                scores = self._teacher[query_id]
                known = (d for d in sorted(scores, key=lambda d: -scores[d]) if d in collection.documents)
                self._grades[query_id] = dict.fromkeys(itertools.islice(known, teacher_positives), 1.0)
            unlabelled = []
        self.labelled = bool(self._grades)
        """Whether any query has a relevant document."""
        usable = [q for q in (*self._grades, *unlabelled) if q not in dropped]
        if not usable:
            raise ValueError(
                f"data: {collection.name} has no query with a relevant document in the corpus (threshold "
                f"{config.relevance_threshold}), and no teacher scores for unlabelled ones; a teacher gives such "
                "queries something to learn"
            )
        self.held_out_ids = [q for q in usable if is_held_out(q, config.held_out)]
        train = [q for q in usable if not is_held_out(q, config.held_out)]
        if not train:
            raise ValueError(f"held_out: {config.held_out} of {len(usable)} queries leaves none to train on")
        self._epoch: list[tuple[str, str | None]] = []
        for query_id in train:
            if query_id not in self._grades:
                self._epoch.append((query_id, None))
                continue
            best = self._positives(query_id)
            random.Random(f"{config.seed}:cap:{query_id}").shuffle(best)
            self._epoch += [(query_id, d) for d in best[:cap]]
        if not self._epoch:
            raise ValueError(
                f"positive_rank_to: {collection.name} has no relevant document among the first "
                f"{config.positive_rank_to} candidates of any query"
            )

    @property
    def size(self) -> int:
        """Lists in an epoch."""
        return len(self._epoch)

    @property
    def train_queries(self) -> int:
        """Queries trained on."""
        return len({query_id for query_id, _ in self._epoch})

    def draw(self, number: int, hard: int) -> RankingList:
        """List ``number`` (from 0); every list once before any comes again.

        Args:
            hard: how many rivals come from the candidates.
        """
        seed = f"{self.config.seed}:{self.collection.name}"
        query_id, positive = self._epoch[epoch_place(number, len(self._epoch), seed)]
        rng = random.Random(f"{seed}:draw:{number}")
        chosen = [positive] if positive is not None else []
        window = self._window(query_id, positive)
        if positive is None:  # unlabelled: the teacher orders what the candidates hold
            hard = max(hard, self.config.list_size // 2)
        hard = min(hard, len(window))
        spread = self.config.rivals == "quantiles" and query_id in self._teacher
        chosen += self._spread(query_id, window, hard, rng) if spread else rng.sample(window, hard)
        dropped = self._suspect(query_id, positive) if self.config.false_negatives == "drop" else ()
        chosen += self._random(query_id, self.config.list_size - len(chosen), rng, [*chosen, *dropped])
        return self._list(query_id, positive, chosen)

    def _spread(self, query_id: str, window: Sequence[str], count: int, rng: random.Random) -> list[str]:
        """One document out of each of ``count`` equal parts of the window, which the teacher orders; best first."""
        scores = self._teacher[query_id]
        ordered = sorted(window, key=lambda d: -scores.get(d, -math.inf))
        return [rng.choice(ordered[i * len(ordered) // count : (i + 1) * len(ordered) // count]) for i in range(count)]

    def _positives(self, query_id: str) -> list[str]:
        """The relevant documents that lists may be built around."""
        relevant = [d for d, g in self._grades[query_id].items() if g > 0]
        if not self.config.positive_rank_to:
            return relevant
        found = set(list(self.candidates.get(query_id, {}))[: self.config.positive_rank_to])
        return [d for d in relevant if d in found]

    def _grade(self, relevance: int) -> float:
        return float(max(0, relevance - self.config.relevance_threshold + 1))

    def _window(self, query_id: str, positive: str | None) -> list[str]:
        """Candidates in the rank window that the relevant document should beat."""
        listed = list(self.candidates.get(query_id, {}))[self.config.hard_rank_from - 1 : self.config.hard_rank_to]
        if positive is None:
            return listed
        grades = self._grades[query_id]
        content = self.collection.documents[positive].content
        suspect = self._suspect(query_id, positive) if self.config.false_negatives == "drop" else set()
        return [
            d
            for d in listed
            if grades.get(d, 0.0) < grades[positive]
            and self.collection.documents[d].content != content
            and d not in suspect
        ]

    def _suspect(self, query_id: str, positive: str | None) -> set[str]:
        """Unjudged documents that the teacher scores too near the relevant one, or above it: perhaps relevant."""
        margin, scores = self.config.false_negative_margin, self._teacher.get(query_id, {})
        if margin is None or positive not in scores:
            return set()
        grades, limit = self._grades[query_id], scores[positive] - margin
        return {d for d, score in scores.items() if score > limit and d not in grades}

    def _random(self, query_id: str, count: int, rng: random.Random, taken: Sequence[str]) -> list[str]:
        grades, used = self._grades.get(query_id, {}), set(taken)
        chosen: list[str] = []
        if query_id in self.collection.own_documents:
            used.add(query_id)
        for _ in range(100 * (count + 1)):
            if len(chosen) >= count:
                break
            doc_id = rng.choice(self._doc_ids)
            if doc_id not in used and grades.get(doc_id, 0.0) <= 0:
                chosen.append(doc_id)
                used.add(doc_id)
        return chosen

    def _list(self, query_id: str, positive: str | None, doc_ids: Sequence[str]) -> RankingList:
        grades, scores = self._grades.get(query_id), self._teacher.get(query_id)
        if grades and self.config.false_negatives == "unlabel":
            grades = {**dict.fromkeys(self._suspect(query_id, positive), math.nan), **grades}
        floor = min(scores.values()) if scores else 0.0
        return RankingList(
            self.collection.name,
            query_id,
            self.collection.queries[query_id].text,
            self.instruction,
            tuple(self.collection.documents[d].content for d in doc_ids),
            tuple(grades.get(d, 0.0) for d in doc_ids) if grades else None,
            tuple(scores.get(d, floor) for d in doc_ids) if scores else None,
        )


class Mixture:
    """Draws from several sources with probability weight * lists ** alpha.

    Args:
        draws: how many draws the whole run makes; the plan is made once.
    """

    def __init__(self, sources: Sequence[ListSource], config: RefineConfig) -> None:
        if not sources:
            raise ValueError("data: at least one collection is needed")
        self.sources, self.config = list(sources), config
        draws = config.steps * config.queries_per_step
        weights = np.array([s.weight * s.size**config.mixture_alpha for s in sources])
        self.shares = weights / weights.sum()
        """Share of each source in the draws."""
        rng = np.random.default_rng([config.seed, draws])
        self._source = rng.choice(len(sources), size=draws, p=self.shares)
        self._number = np.zeros(draws, dtype=np.int64)
        for index in range(len(sources)):
            mine = self._source == index
            self._number[mine] = np.arange(mine.sum())

    def draw(self, number: int, hard: int) -> RankingList:
        """Draw ``number`` of the run (from 0)."""
        return self.sources[int(self._source[number])].draw(int(self._number[number]), hard)


def _scaled(scores: Mapping[str, float], normalise: bool) -> dict[str, float]:
    if not normalise:
        return dict(scores)
    values = np.fromiter(scores.values(), dtype=np.float64)
    mean, deviation = values.mean(), values.std()
    return {d: float((s - mean) / (deviation or 1.0)) for d, s in scores.items()}
