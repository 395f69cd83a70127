"""The engine ``local``: processes on this machine, each with a model of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from prorank.backends.native.room import packed_in
from prorank.batch.job import ScoreRun
from prorank.batch.parts import Reading, Scores, Task
from prorank.batch.scorer import Facts, RowScorer
from prorank.model.options import LoadOptions
from prorank.model.processes import each_process, thread_variables
from prorank.workers import Workers

__all__ = ["LocalEngine", "check"]


def check(run: ScoreRun, options: LoadOptions) -> None:
    """Raises ValueError where the processes do not fit this machine, or a setting of another engine is given."""
    for name in ("address", "concurrency"):
        if getattr(run, name) is not None:
            raise ValueError(f"{name}: the engine local has none; give processes or devices, or engine ray")
    each_process(options)


class LocalEngine:
    """See :class:`prorank.batch.job.Engine`. At most two tasks a worker are in memory."""

    def __init__(self, run: ScoreRun, options: LoadOptions) -> None:
        each = each_process(options)
        arguments = [(one, run.instruction) for one in each]
        self._workers = Workers(_open, arguments, retries=run.retries, environment=thread_variables(each[0]), room=True)
        self.facts: Facts = self._workers.hello

    def scored(self, reading: Reading) -> Iterator[tuple[Task, Scores]]:
        """See :class:`prorank.batch.job.Engine`."""
        waiting: dict[Future[Scores], Task] = {}
        with ThreadPoolExecutor(len(self._workers), thread_name_prefix="prorank-score") as pool:
            try:
                for task in reading.all_tasks():
                    if len(waiting) >= 2 * len(self._workers):
                        yield from _done(waiting)
                    waiting[pool.submit(self._workers, task.rows)] = task
                while waiting:
                    yield from _done(waiting)
            except BaseException:  # the consumer's too: what is being scored is of no use any more
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()
                raise

    def close(self) -> None:
        """See :class:`prorank.batch.job.Engine`."""
        self._workers.close()


def _done(waiting: dict[Future[Scores], Task]) -> list[tuple[Task, Scores]]:
    finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
    return [(waiting.pop(future), future.result()) for future in finished]


def _open(options: LoadOptions, instruction: str | None, room: int) -> tuple[Any, Any]:
    with packed_in(room):
        scorer = RowScorer(options, instruction)
    return scorer.facts, scorer
