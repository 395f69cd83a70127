"""A whole evaluation: every system over the same candidates, measured, compared, and written to one folder.

The folder holds ``NAME.trec`` a system, ``per-query.tsv``, ``record.jsonl`` (one line), ``report.md``, ``report.html``
and ``journal/``. Running the same evaluation again continues where it stopped; finished systems cost nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from prorank.data.collection import Collection
from prorank.evaluate.metrics import measure, parse_measures
from prorank.evaluate.record import append_record
from prorank.evaluate.report import write_report
from prorank.evaluate.results import Evaluation, Options, Row, Tested
from prorank.evaluate.run import Outcome, outcome_of_run, run_system, slug
from prorank.evaluate.significance import bootstrap_interval, compare_paired, holm
from prorank.evaluate.systems import System
from prorank.files import write_atomic
from prorank.types import Run

__all__ = ["Peer", "check_against", "evaluate"]

OnSystem = Callable[[str, int], Callable[[int, int], None]]
"""(name, queries) -> the callback that :func:`prorank.evaluate.run.run_system` calls."""


class Peer(NamedTuple):
    """Something to evaluate: a system loaded when its turn comes, or lists that are already there."""

    load: Callable[[], System] | None
    run: tuple[str, Run] | None = None
    name: str | None = None
    """The name that the loaded system will have, where it is known before."""


def evaluate(
    collection: Collection,
    candidates: Run,
    peers: Sequence[Peer],
    out: Path,
    *,
    first_stage: str = "first stage",
    top_k: int = 100,
    options: Options | None = None,
    restart: bool = False,
    on_system: OnSystem | None = None,
) -> Evaluation:
    """Evaluate every peer on the first stage's candidates and write the folder.

    Args:
        candidates: at most ``top_k`` documents a query, best first; a query's own document counts in no system's list
            where the collection leaves it out.
        out: made where it is not there; a finished or interrupted evaluation of the same is continued.
        first_stage: its name in the table.

    Raises:
        ValueError: no judgments, an unknown measure, ``options.against`` names no system, or the folder holds
            another evaluation.
    """
    options = options or Options()
    parse_measures(options.measures, options.min_relevance)
    if not collection.qrels:
        raise ValueError(f"data: {collection.name} has no judgments to measure against")
    check_against(options.against, [first_stage, *(peer.run[0] if peer.run else peer.name for peer in peers)])
    out.mkdir(parents=True, exist_ok=True)
    candidates = collection.without_own(candidates, top_k)
    outcomes = [outcome_of_run(first_stage, candidates, out, {"kind": "first stage"})]
    for peer in peers:
        if peer.run is not None:
            name, run = peer.run
            name, run = _free(name, [o.name for o in outcomes]), collection.without_own(run)
            outcomes.append(outcome_of_run(name, run, out, {"kind": "run"}))
            continue
        assert peer.load is not None
        system = peer.load()
        system.name = _free(system.name, [o.name for o in outcomes])
        judged = sum(bool(candidates.get(query_id)) for query_id in collection.qrels)
        on_query = on_system(system.name, judged) if on_system is not None else None
        outcomes.append(run_system(system, collection, candidates, out, restart=restart, on_query=on_query))
        del system  # the next one should not have to share the memory
    rows = _rows(collection, outcomes, options)
    payload = _payload(collection, rows, options, first_stage, top_k)
    target = out / "record.jsonl"
    target.unlink(missing_ok=True)
    record = append_record(target, "evaluate", payload)
    result = Evaluation(collection, rows, options, first_stage, top_k, record)
    _write_per_query(out / "per-query.tsv", result)
    write_report(result, out)
    return result


def check_against(against: str | None, systems: Sequence[str | None]) -> None:
    """Refuse to compare with a system that will not be in the table.

    Args:
        systems: the names, the first stage's first; None: it is known only when the system is loaded, so nothing can
            be refused yet.

    Raises:
        ValueError: ``against`` is none of them.
    """
    names: list[str] = []
    for name in systems:
        if name is None:
            return
        names.append(_free(name, names))
    if against is not None and against not in names:
        raise ValueError(f"against: {against!r} is none of the systems: {', '.join(names)}")


def _free(name: str, earlier: Sequence[str]) -> str:
    """The name, numbered where an earlier system's file has it."""
    taken = {slug(other) for other in earlier}
    number, free = 1, name
    while slug(free) in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _rows(collection: Collection, outcomes: Sequence[Outcome], options: Options) -> list[Row]:
    measured = {
        o.name: measure(o.run, collection.qrels, options.measures, min_relevance=options.min_relevance)
        for o in outcomes
    }
    others = [outcomes[0].name]
    if options.against is not None and options.against not in others:
        if options.against not in measured:
            raise ValueError(f"against: {options.against!r} is none of the systems: {', '.join(measured)}")
        others.append(options.against)
    versus: dict[str, dict[str, dict[str, Tested]]] = {name: {} for name in measured}
    for other in others:
        names = [name for name in measured if name != other]
        for by in options.measures:
            found = [
                compare_paired(
                    list(measured[name].values[by].values()),
                    list(measured[other].values[by].values()),
                    level=options.level,
                    permutations=options.permutations,
                )
                for name in names
            ]
            for name, comparison, p in zip(names, found, holm([f.p for f in found]), strict=True):
                versus[name].setdefault(other, {})[by] = Tested(comparison, p)
    return [
        Row(
            outcome,
            measured[outcome.name],
            {
                by: bootstrap_interval(list(values.values()), level=options.level, resamples=options.resamples)
                for by, values in measured[outcome.name].values.items()
            },
            versus[outcome.name],
        )
        for outcome in outcomes
    ]


def _payload(
    collection: Collection, rows: Sequence[Row], options: Options, first_stage: str, top_k: int
) -> dict[str, Any]:
    config = {**asdict(options), "measures": list(options.measures), "first_stage": first_stage, "top_k": top_k}
    return {
        "config": config,
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "dataset": {
            "name": collection.name,
            "split": collection.split,
            "documents": len(collection.documents),
            "queries": len(collection.qrels),
            "judgments": sum(map(len, collection.qrels.values())),
            "documents_sha256": collection.documents_hash,
            "queries_sha256": collection.queries_hash,
            "qrels_sha256": collection.qrels_hash,
            "own_documents": "keep" if collection.keeps_own else "drop",
            "own_documents_left_out": len(collection.own_documents),
        },
        "systems": [_system(row) for row in rows],
    }


def _system(row: Row) -> dict[str, Any]:
    outcome = row.outcome
    return {
        "name": row.name,
        "description": dict(outcome.description),
        "run_sha256": outcome.run_sha256,
        "pairs": sum(map(len, outcome.run.values())),
        "ties": sum(outcome.ties.values()),
        "missing_queries": len(row.measured.missing),
        "measures": {by: interval._asdict() for by, interval in row.intervals.items()},
        "versus": {
            other: {
                by: {
                    **tested.comparison.difference._asdict(),
                    "p": tested.comparison.p,
                    "p_holm": tested.p_holm,
                    "better": tested.comparison.better,
                    "worse": tested.comparison.worse,
                    "equal": tested.comparison.equal,
                }
                for by, tested in compared.items()
            }
            for other, compared in row.versus.items()
        },
        "cost": outcome.cost(),
        "tokens": outcome.tokens,
        "peak_memory_mib": dict(outcome.peak_memory),
    }


def _write_per_query(path: Path, result: Evaluation) -> None:
    names = list(result.options.measures)
    lines = ["\t".join(["system", "query_id", *names, "candidates", "ties", "seconds"])]
    for row in result.rows:
        for query_id in result.collection.qrels:
            values = [repr(row.measured.values[name][query_id]) for name in names]
            found = len(row.outcome.run.get(query_id, {}))
            ties, seconds = row.outcome.ties.get(query_id, 0), row.outcome.seconds.get(query_id, "")
            lines.append("\t".join([row.name, query_id, *values, str(found), str(ties), str(seconds)]))
    write_atomic(path, "\n".join(lines) + "\n")
