"""The engine ``ray``: Ray Data streams tasks from one reader to actors that hold a model each.

The reader runs on the node of the command and is the only one that needs the input's files. Ray bounds what is under
way by its object store, places the actors, and repeats what a dead one was at; how often is counted here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from prorank._optional import require
from prorank.backends.cores import available_cores
from prorank.batch.job import ScoreRun
from prorank.batch.parts import Reading, Scores, Task
from prorank.batch.rows import Row
from prorank.batch.scorer import Facts, RowScorer
from prorank.model.options import LoadOptions
from prorank.workers import WorkerDiedError

__all__ = ["RayEngine", "Scorer", "check"]

_DIED = "a worker on Ray ended more often than retries allows over the same work: is there enough memory?"


class Scorer:
    """An actor class for ``dataset.map_batches``: adds the columns ``margin`` (float32) and ``probability``.

    Rows of one query share its prompt's beginning where they come in one batch: sort the dataset by query, and give
    ``batch_size`` some hundred rows.

    Args:
        model: as in :meth:`prorank.Reranker.from_pretrained`; default: the built-in reranker.
        query: the column of queries.
        text: the column of documents' texts.
        instruction: what relevance means here; None: the template's.
        options: further ones of ``from_pretrained``; without ``threads``, the CPUs that Ray gives the actor are used.
    """

    def __init__(
        self, model: str | None = None, *, query: str = "query", text: str = "text", instruction: str | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        self._query, self._text = query, text
        self._scorer = RowScorer(_with_threads(LoadOptions(model, **options)), instruction)

    def __call__(self, batch: Any) -> Any:
        """The batch with two columns more: a mapping of arrays, an Arrow table or a pandas frame, as it came.

        Raises:
            ValueError: a column is missing, or a cell is no string.
        """
        names = list(batch.column_names) if hasattr(batch, "column_names") else list(batch)
        columns = []
        for name in (self._query, self._text):
            if name not in names:
                raise ValueError(f"no column {name!r} (columns: {', '.join(map(str, names))})")
            column = batch[name]
            columns.append(column.to_pylist() if hasattr(column, "to_pylist") else list(column))
            wrong = next((cell for cell in columns[-1] if not isinstance(cell, str)), None)
            if wrong is not None:
                raise ValueError(f"column {name!r}: expected strings, got {type(wrong).__name__}")
        scores = self._scorer.score(list(zip(*columns, strict=True)))
        return _with_columns(batch, scores)


class Attempts:
    """An actor that counts how often each task was begun, and workers opened since the last task was done.

    Args:
        openings: how many of these at most.
        retries: how often a task may be begun anew.
    """

    def __init__(self, openings: int, retries: int) -> None:
        self._most_openings, self._retries = openings, retries
        self._openings = 0
        self._begun: dict[str, int] = {}

    def open(self) -> bool:
        """Whether one more worker may open."""
        self._openings += 1
        return self._openings <= self._most_openings

    def begin(self, task: str) -> bool:
        """Whether the task may be begun (again)."""
        self._begun[task] = self._begun.get(task, 0) + 1
        return self._begun[task] <= self._retries + 1

    def end(self, task: str) -> None:
        """The task is done."""
        self._begun.pop(task, None)
        self._openings = 0


class TaskScorer:
    """The actor class of a job: a row is a :class:`prorank.batch.parts.Task`, so that no query is torn apart."""

    def __init__(self, options: LoadOptions, instruction: str | None, attempts: Any) -> None:
        self._attempts, self._ray = attempts, require("ray", extra="ray")
        self._check(attempts.open.remote())
        self._scorer = RowScorer(_with_threads(options), instruction)

    def __call__(self, tasks: Any) -> Iterator[Any]:
        for row in tasks.to_pylist():
            task = _task(row)
            key = f"{task.part} {task.places[0]}"
            self._check(self._attempts.begin.remote(key))
            margins, probabilities = self._scorer(task.rows)
            self._attempts.end.remote(key)
            yield _table({**_fields(task, texts=False), "margins": margins, "probabilities": probabilities})

    def _check(self, allowed: Any) -> None:
        if not self._ray.get(allowed):
            raise WorkerDiedError(_DIED)


def check(run: ScoreRun, options: LoadOptions) -> None:
    """Raises ValueError where a setting of another engine is given, or nobody answers at the address."""
    for name in ("processes", "devices"):
        if getattr(options, name) is not None:
            raise ValueError(f"{name}: belongs to engine local; ray takes concurrency")
    host, _, port = (run.address or "").rpartition(":")
    if run.address in (None, "auto", "local"):
        return
    if not host or not port.isdigit():
        raise ValueError(f"address: expected auto or HOST:PORT, got {run.address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"address: nobody answers at {run.address} ({error})") from None


class RayEngine:
    """See :class:`prorank.batch.job.Engine`."""

    def __init__(self, run: ScoreRun, options: LoadOptions) -> None:
        self._ray: Any = require("ray", extra="ray")
        self._data: Any = require("ray.data", extra="ray")
        self._run, self._options = run, options
        self._started = _connect(self._ray, run.address)
        try:
            self._concurrency, self._resources = self._placed()
            asked = self._ray.remote(_facts_of).options(**self._resources, max_retries=run.retries)
            with _plainly(self._ray):
                self.facts = Facts(*self._ray.get(asked.remote(options, run.instruction)))
        except BaseException:
            self.close()
            raise

    def scored(self, reading: Reading) -> Iterator[tuple[Task, Scores]]:
        """See :class:`prorank.batch.job.Engine`."""
        with _plainly(self._ray):
            dataset = self._dataset(reading)
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                for row in batch.to_pylist():
                    margins, probabilities = row.pop("margins"), row.pop("probabilities")
                    yield _task(row), Scores(np.array(margins, np.float32), np.array(probabilities))

    def close(self) -> None:
        """See :class:`prorank.batch.job.Engine`."""
        if self._started:
            self._ray.shutdown()

    def _dataset(self, reading: Reading) -> Any:
        data, retries = self._data, self._run.retries
        numbers = [number for number, names in enumerate(reading.todo) if names]
        here = {"ray.io/node-id": self._ray.get_runtime_context().get_node_id()}
        openings = self._concurrency * (retries + 1)
        attempts = self._ray.remote(Attempts).options(num_cpus=0).remote(openings, retries)
        context = data.DataContext.get_current()
        before = context.target_max_block_size, context.enable_progress_bars
        context.target_max_block_size, context.enable_progress_bars = 1, False  # a block a task
        try:
            sources = data.from_items([{"source": n} for n in numbers], override_num_blocks=len(numbers))
            tasks = sources.map_batches(
                _read, fn_kwargs={"reading": reading}, batch_size=1, compute=data.TaskPoolStrategy(size=1), num_cpus=0,
                label_selector=here,
            )  # fmt: skip
            return tasks.map_batches(
                TaskScorer, fn_constructor_args=(self._options, self._run.instruction, attempts), batch_size=None,
                batch_format="pyarrow", compute=data.ActorPoolStrategy(size=self._concurrency), **self._resources,
            )  # fmt: skip
        finally:
            context.target_max_block_size, context.enable_progress_bars = before

    def _placed(self) -> tuple[int, dict[str, float]]:
        """How many actors, and what each is given: a GPU, or its share of the CPUs."""
        there, device = self._ray.cluster_resources(), self._options.device
        on_gpu = device in (None, "auto") or str(device).startswith("cuda")
        gpus, cpus = int(there.get("GPU", 0)) if on_gpu else 0, int(there.get("CPU", 0))
        nodes = sum(bool(node["Alive"]) for node in self._ray.nodes())
        concurrency = self._run.concurrency or gpus or nodes
        if gpus:
            return concurrency, {"num_cpus": 1, "num_gpus": 1}
        each = self._options.threads or max(1, cpus // concurrency)
        if self._started and concurrency * each > cpus:
            raise ValueError(f"concurrency: {concurrency} workers of {each} CPUs are more than the {cpus} here")
        return concurrency, {"num_cpus": each}


def _connect(ray: Any, address: str | None) -> bool:
    """Whether a cluster of this machine was started for it."""
    if ray.is_initialized():
        return False
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    where = address or ("auto" if os.environ.get("RAY_ADDRESS") else "local")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if where == "local":
        ray.init("local", num_cpus=available_cores(), include_dashboard=False, **quiet)
        return True
    try:
        ray.init(where, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"address: {where} cannot be reached: {reason}") from None
    return False


@contextlib.contextmanager
def _plainly(ray: Any) -> Iterator[None]:
    """Errors of tasks and actors as what they were."""
    try:
        yield
    except Exception as error:
        original: BaseException | None = error
        while original is not None and isinstance(original, ray.exceptions.RayError):
            if isinstance(original, ray.exceptions.ActorDiedError):
                raise WorkerDiedError(_DIED) from error
            original = getattr(original, "cause", None) or original.__cause__
        if original is None or original is error:
            raise
        raise original from None


def _facts_of(options: LoadOptions, instruction: str | None) -> Facts:
    return RowScorer(_with_threads(options), instruction).facts


def _with_threads(options: LoadOptions) -> LoadOptions:
    """With the CPUs that Ray has given this actor or task, unless it says how many threads."""
    ray = require("ray", extra="ray")
    if options.threads is not None or not ray.is_initialized():
        return options
    given = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return replace(options, threads=max(1, int(given)))


def _read(batch: Mapping[str, Any], reading: Reading) -> Iterator[Any]:
    for number in batch["source"]:
        for task in reading.tasks(int(number)):
            yield _table(_fields(task))


def _fields(task: Task, *, texts: bool = True) -> dict[str, Any]:
    columns = dict(zip(Row._fields, map(list, zip(*task.rows, strict=True)), strict=True))
    ids = {name: column for name, column in columns.items() if texts or name in ("query_id", "doc_id")}
    return {"part": task.part, "size": task.size, "places": task.places, **ids}


def _task(row: Mapping[str, Any]) -> Task:
    empty = [""] * len(row["places"])
    cells = zip(*(row.get(name, empty) for name in Row._fields), strict=True)
    return Task(row["part"], row["size"], row["places"], [Row(*cell) for cell in cells])


def _table(fields: Mapping[str, Any]) -> Any:
    """An Arrow table of one row."""
    arrow = require("pyarrow", extra="ray")
    return arrow.table({name: arrow.array([value]) for name, value in fields.items()})


def _with_columns(batch: Any, scores: Scores) -> Any:
    if hasattr(batch, "append_column"):  # Arrow
        arrow = require("pyarrow", extra="ray")
        return batch.append_column("margin", arrow.array(scores.margins)).append_column(
            "probability", arrow.array(scores.probabilities)
        )
    if hasattr(batch, "assign"):  # pandas
        return batch.assign(margin=scores.margins, probability=scores.probabilities)
    return {**batch, "margin": scores.margins, "probability": scores.probabilities}
