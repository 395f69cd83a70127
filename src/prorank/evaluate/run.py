"""The evaluation loop: one system over all queries, resumable at the query.

Each query is scored by itself, so its margins do not depend on where a run was interrupted: the final run file of an
interrupted and resumed evaluation equals, byte for byte, that of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prorank.data.collection import Collection
from prorank.data.trec import write_run
from prorank.evaluate.metrics import count_ties, ranked
from prorank.evaluate.record import peak_memory_mib, reset_peak_memory
from prorank.evaluate.systems import System
from prorank.journal import Journal, journal_key
from prorank.types import Run

__all__ = ["Outcome", "outcome_of_run", "run_system", "slug"]


@dataclass(frozen=True)
class Outcome:
    """One system's ranked lists and what they cost."""

    name: str
    description: Mapping[str, Any]
    run: Run
    """Best first; ties by first-stage rank."""
    ties: Mapping[str, int] = field(default_factory=dict)
    """query_id -> documents whose margin equals that of a better ranked one."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """query_id -> time to score its candidates, tokenisation included; empty where nothing was computed."""
    tokens: int = 0
    peak_memory: Mapping[str, float] = field(default_factory=dict)
    """MiB: ``process``, and ``gpu`` where one is used."""
    run_sha256: str = ""
    """Of the run file."""

    def cost(self) -> dict[str, float | None]:
        """Latency p50, p95 and mean in seconds a query, pairs and tokens a second; None where nothing was timed."""
        times = np.array(list(self.seconds.values()))
        if not times.size or times.sum() <= 0:
            return dict.fromkeys(("p50_s", "p95_s", "mean_s", "pairs_per_s", "tokens_per_s"))
        pairs = sum(len(self.run[query_id]) for query_id in self.seconds)
        return {
            "p50_s": float(np.quantile(times, 0.5)),
            "p95_s": float(np.quantile(times, 0.95)),
            "mean_s": float(times.mean()),
            "pairs_per_s": float(pairs / times.sum()),
            "tokens_per_s": float(self.tokens / times.sum()) if self.tokens else None,
        }


def run_system(
    system: System,
    collection: Collection,
    candidates: Run,
    folder: Path,
    *,
    restart: bool = False,
    on_query: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Score every judged query's candidates, write ``NAME.trec``, and return the outcome.

    Args:
        candidates: the first stage's lists; a query it lacks gets no list (and counts 0 later).
        folder: holds the run file and ``journal/NAME.jsonl``; a journal found there is continued.
        restart: begin anew even so.
        on_query: called with (queries done, of these resumed) at the start and after each query.

    Raises:
        ValueError: the journal belongs to another run, or the system gave a wrong number of scores or NaN.
    """
    todo = {q: list(candidates[q]) for q in (collection.qrels or collection.queries) if candidates.get(q)}
    description = dict(system.describe())
    key = journal_key(
        {
            "system": description,
            "documents": collection.documents_hash,
            "queries": collection.queries_hash,
            "candidates": todo,
        }
    )
    reset_peak_memory()
    with Journal(folder / "journal" / f"{slug(system.name)}.jsonl", key, restart=restart) as journal:
        done = {entry["query_id"] for entry in journal.entries}
        resumed = len(done)
        if on_query is not None:
            on_query(len(done), resumed)
        for query_id, doc_ids in todo.items():
            if query_id in done:
                continue
            texts = [collection.documents[doc_id].content for doc_id in doc_ids]
            start = time.perf_counter()
            margins, tokens = system.score(collection.queries[query_id].text, texts)
            seconds = time.perf_counter() - start
            margins = np.asarray(margins, dtype=np.float32)
            if margins.shape != (len(doc_ids),) or not np.isfinite(margins).all():
                raise ValueError(
                    f"{system.name}: query {query_id!r}: expected {len(doc_ids)} finite scores, got shape "
                    f"{margins.shape} with {int((~np.isfinite(margins)).sum())} that are not finite"
                )
            journal.append(
                {
                    "query_id": query_id,
                    "margins": [float(margin) for margin in margins],
                    "seconds": round(seconds, 6),
                    "tokens": int(tokens),
                    "peak_mib": peak_memory_mib(),
                }
            )
            done.add(query_id)
            if on_query is not None:
                on_query(len(done), resumed)
        entries = {entry["query_id"]: entry for entry in journal.entries}
    run = {q: ranked(doc_ids, entries[q]["margins"]) for q, doc_ids in todo.items()}
    path = folder / f"{slug(system.name)}.trec"
    return Outcome(
        system.name,
        description,
        run,
        ties={q: count_ties(entries[q]["margins"]) for q in todo},
        seconds={q: entries[q]["seconds"] for q in todo},
        tokens=sum(entries[q]["tokens"] for q in todo),
        peak_memory=_largest([entry["peak_mib"] for entry in entries.values()]),
        run_sha256=_write(path, run, system.name),
    )


def outcome_of_run(name: str, run: Run, folder: Path, description: Mapping[str, Any]) -> Outcome:
    """A list that is already there (the first stage, a peer's run file) as an outcome, its run file written too."""
    return Outcome(
        name,
        dict(description),
        run,
        ties={q: count_ties(list(documents.values())) for q, documents in run.items()},
        run_sha256=_write(folder / f"{slug(name)}.trec", run, name),
    )


def slug(name: str) -> str:
    """A file name made of a system's name."""
    return re.sub(r"[^A-Za-z0-9._+=-]+", "-", name).strip("-.") or "system"


def _write(path: Path, run: Run, tag: str) -> str:
    aside = path.with_name(f".{path.name}.part")
    write_run(aside, run, slug(tag))
    digest = hashlib.sha256(aside.read_bytes()).hexdigest()
    aside.replace(path)
    return digest


def _largest(peaks: list[Mapping[str, float]]) -> dict[str, float]:
    return {part: max(peak.get(part, 0.0) for peak in peaks) for peak in peaks for part in peak}
