"""A scoring job: reads, has an engine score, writes parts, and remembers in a journal which are done.

The same job run again goes on where it was ended, however that was. It knows neither files' formats nor processes.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from prorank._optional import check as installed
from prorank.batch.parts import Assembly, Plan, Reading, Scores, Task, planned
from prorank.batch.rows import Lists, PairsFile, Source, beir_files, pairs_files
from prorank.batch.scorer import Facts
from prorank.batch.writing import ENDINGS, Form, clear_leftovers, kept_on_failure, write_part
from prorank.journal import Journal, journal_key
from prorank.model.options import LoadOptions
from prorank.workers import RETRIES

__all__ = ["ENGINES", "Engine", "ScoreRun", "Scored", "score_pairs"]

ENGINES = {"local": ("prorank.batch.local", "LocalEngine"), "ray": ("prorank.batch.ray", "RayEngine")}
"""Name -> module and class; the module's ``check(run, options)`` says at once what does not fit."""

JOURNAL = ".journal.jsonl"
"""Hidden, so that ``scored/*.jsonl`` are the parts and nothing else."""
_OLD_JOURNAL = "journal.jsonl"


class Engine(Protocol):
    """Has tasks scored by several workers; its constructor takes a :class:`ScoreRun` and :class:`LoadOptions`."""

    facts: Facts
    """Of the model that the workers have loaded."""

    def scored(self, reading: Reading) -> Iterator[tuple[Task, Scores]]:
        """Every task of the reading once, in any order, with bounded memory. Of the rows only the ids may be left.

        Raises:
            Exception: the first error of a worker, or of the reading.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScoreRun:
    """What a scoring job reads, how it is divided, and where it writes."""

    out: str
    """Folder for the parts and the journal; the same command again goes on there."""
    input: Sequence[str] | None = None
    """Parquet or JSON-lines files (plain or .gz), patterns or folders, with the columns query_id, query, doc_id and
    text (and title, read before the text); best with the rows of a query one after the other."""
    run: str | None = None
    """TREC run whose documents are scored, instead of input."""
    corpus: str | None = None
    """The documents that the run names."""
    queries: str | None = None
    """The queries that the run names."""
    data: str | None = None
    """BEIR folder that holds corpus and queries."""
    format: Form | None = None
    """Of the parts (default: parquet or jsonl as the input, trec for a run)."""
    engine: str = "local"
    """local (processes on this machine) or ray (a Ray cluster)."""
    address: str | None = None
    """Of the Ray cluster: auto, or HOST:PORT (default: one is started here)."""
    concurrency: int | None = None
    """Workers on Ray (default: one a GPU, else one a node)."""
    instruction: str | None = None
    """What relevance means here (default: the template's)."""
    part_rows: int = 10_000
    """Rows of a part; what is lost by a kill are the parts that were being scored."""
    retries: int = RETRIES
    """How often work is repeated whose worker died."""
    restart: bool = False
    """Throw away what an earlier job has left in the folder."""


class Scored(NamedTuple):
    """What a job has done."""

    rows: int
    """Pairs of the whole job."""
    parts: int
    found: int
    """Parts that were there before."""
    scored_rows: int
    """Pairs that were scored now."""
    seconds: float
    """For these, loading left out."""


OnPairs = Callable[[int, int], None]
"""Called with (pairs done, of these found) at the start and after each task."""


def score_pairs(
    run: ScoreRun,
    options: LoadOptions | None = None,
    *,
    on_rows: Callable[[int], None] | None = None,
    on_pairs: Callable[[int], OnPairs] | None = None,
) -> Scored:
    """Run a job to its end.

    Margins are those of :meth:`prorank.Reranker.score`, on our own engine to the last bit.

    Args:
        options: how the model is loaded; with the ``processes`` or ``devices`` that share the work of engine ``local``.
        on_rows: called with how many rows more were read, in the first reading.
        on_pairs: called with the number of all pairs when it is known; it gives what is called as pairs are done.

    Raises:
        ValueError: something in the input or a setting does not fit, the folder holds another job, or it cannot be
            written to; what is finished stays.
        ImportError: the engine's library is not installed.
        prorank.workers.WorkerDiedError: workers died more often than ``retries`` over the same work.
    """
    options = options or LoadOptions()
    engine_module, engine_class = _engine(run.engine)
    _check_counts(run)
    sources = _sources(run)
    form = _form(run, sources)
    if form == "parquet" or any(isinstance(source, PairsFile) and source.is_parquet for source in sources):
        installed("pyarrow", extra="parquet")
    engine_module.check(run, options)
    plan = planned(sources, run.part_rows, for_trec=form == "trec", on_rows=on_rows)
    folder = Path(run.out)
    with kept_on_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(getattr(engine_module, engine_class)(run, options)) as engine:
        facts = _facts(run, plan, engine.facts, form)
        with kept_on_failure(folder):
            _rename_old(folder)
            journal = Journal(folder / JOURNAL, journal_key(facts), facts=facts, what="job", restart=run.restart)
        with journal:
            clear_leftovers(folder)
            return _finish(run, plan, sources, engine, journal, form, on_pairs)


def _finish(
    run: ScoreRun, plan: Plan, sources: Sequence[Source], engine: Engine, journal: Journal, form: Form,
    on_pairs: Callable[[int], OnPairs] | None,
) -> Scored:  # fmt: skip
    folder, names = Path(run.out), [name for of in plan.parts for name in of]
    done = {entry["part"]: entry["rows"] for entry in journal.entries if _is_whole(folder, entry)}
    found_rows, scored, started = sum(done.values()), 0, time.perf_counter()
    tell = on_pairs(plan.rows) if on_pairs is not None else None
    if tell is not None:
        tell(found_rows, found_rows)
    reading = Reading(sources, run.part_rows, [[name for name in of if name not in done] for of in plan.parts])
    assembly = Assembly()
    if len(done) < len(names):
        with contextlib.closing(engine.scored(reading)) as tasks:  # type: ignore[type-var]
            for task, scores in tasks:
                scored += len(task.places)
                part = assembly.add(task, scores)
                if part is not None:
                    with kept_on_failure(folder):
                        path = write_part(folder, part, form, engine.facts.model)
                        entry = {"part": part.name, "rows": len(part.doc_ids), "bytes": path.stat().st_size}
                        journal.append({**entry, "file": path.name})
                if tell is not None:
                    tell(found_rows + scored, found_rows)
    missing = set(names) - {entry["part"] for entry in journal.entries}
    if missing:
        raise RuntimeError(f"engine {run.engine} left out {len(missing)} parts, the first is {min(missing)}")
    return Scored(plan.rows, len(names), len(done), scored, time.perf_counter() - started)


def _rename_old(folder: Path) -> None:
    """A journal that an earlier version began goes on under the name of today."""
    old = folder / _OLD_JOURNAL
    if old.is_file() and not (folder / JOURNAL).exists():
        with old.open("rb") as file:
            if file.read(12) == b'{"journal": ':
                old.rename(folder / JOURNAL)


def _is_whole(folder: Path, entry: dict[str, Any]) -> bool:
    path = folder / entry["file"]
    return path.is_file() and bool(path.stat().st_size == entry["bytes"])


def _engine(name: str) -> tuple[Any, str]:
    if name not in ENGINES:
        raise ValueError(f"engine: expected {' or '.join(ENGINES)}, got {name!r}")
    module, cls = ENGINES[name]
    if name == "ray":
        installed("ray", extra="ray")
    return importlib.import_module(module), cls


def _check_counts(run: ScoreRun) -> None:
    for name, least in (("part_rows", 1), ("concurrency", 1), ("retries", 0)):
        value = getattr(run, name)
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if run.format is not None and run.format not in ENDINGS:
        raise ValueError(f"format: expected {', '.join(ENDINGS)}, got {run.format!r}")


def _sources(run: ScoreRun) -> Sequence[Source]:
    if bool(run.input) == bool(run.run):
        raise ValueError("input: give files with rows to score, or a TREC run with its corpus and queries")
    if run.input:
        for name in ("corpus", "queries", "data"):
            if getattr(run, name) is not None:
                raise ValueError(f"{name}: belongs to a run; the rows of input hold their texts")
        return pairs_files([run.input] if isinstance(run.input, str) else run.input)
    if run.data is not None:
        if run.corpus is not None or run.queries is not None:
            raise ValueError("data: holds corpus and queries; give one or the other")
        corpus, queries = beir_files(run.data)
    elif run.corpus is None or run.queries is None:
        raise ValueError("run: needs corpus and queries, or data, for the texts of what it names")
    else:
        corpus, queries = Path(run.corpus), Path(run.queries)
    return [Lists(Path(str(run.run)), corpus, queries)]


def _form(run: ScoreRun, sources: Sequence[Source]) -> Form:
    if run.format is not None:
        return run.format
    if run.run:
        return "trec"
    return "parquet" if all(isinstance(one, PairsFile) and one.is_parquet for one in sources) else "jsonl"


def _facts(run: ScoreRun, plan: Plan, model: Facts, form: Form) -> dict[str, str]:
    """What scores and parts depend on; the engine and its processes do not belong to it."""
    return {
        "input": plan.sha256[:16],
        "model": f"{model.model} on {model.backend} {model.fingerprint[:16]}",
        "instruction": repr(run.instruction),
        "format": form,
        "part_rows": str(run.part_rows),
    }
