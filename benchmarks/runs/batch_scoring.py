"""Pairs a second of batch scoring: one process, local processes, and Ray, over the same pairs, with equal scores.

    python -m benchmarks.runs.batch_scoring --work runs/batch --append benchmarks/results/batch_scoring.jsonl
    python -m benchmarks.runs.batch_scoring --queries 20 --top-k 10      # does it run?

The pairs are BM25's best passages of MS MARCO queries. Each side is a process of its own, one after the other: ``one``
is :meth:`prorank.Reranker.score` with all cores, 256 pairs at a time; ``local`` and ``ray`` are whole jobs of
``prorank.batch``. A rate counts from the loaded model to the last part on disk. Memory is the proportional set size of
the side's process and all below it, sampled: what they share counts once.

With ``--work`` the same command again goes on where it was ended: sides that are done are not run again, pairs that are
scored are not scored again, and the rate is over all the time that was spent scoring. A line of progress a minute.
``--sides one local`` leaves Ray out; where it is not installed it is left out, and said to be. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.runs.collections import DATA
from benchmarks.runs.turns import ended

BLOCK = 256
SIDES = ("one", "local", "ray")
SAMPLE_SECONDS = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=DATA / "msmarco-sample", help="a BEIR folder (default: %(default)s)"
    )
    parser.add_argument("--split", help="which judgments (default: the only ones)")
    parser.add_argument("--queries", type=int, default=1000, help="queries (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=100, help="BM25's candidates a query (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=2, help="local processes and Ray actors (default: %(default)s)"
    )
    parser.add_argument("--part-rows", type=int, default=10_000, help="rows of a part (default: %(default)s)")
    parser.add_argument("--model", help="default: the built-in reranker")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="what to run (default: all)")
    parser.add_argument("--work", type=Path, help="folder that is kept, where an ended run goes on")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the record to this file")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.side is not None:
        run_side(args, args.work)
        return 0
    with contextlib.ExitStack() as stack:
        scratch = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prorank-batch-")))
        result = measured(args, scratch)
    for name, row in result["sides"].items():
        print(f"{name:<16}{row['pairs_per_second']:>9.2f} pairs/s{row['share_of_one_process']:>8.0%} of one process")
    return ended(result, args.append)


def measured(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    work.mkdir(parents=True, exist_ok=True)
    settings = {"data": args.data.name, "split": args.split, "queries": args.queries, "top_k": args.top_k,
                "processes": args.processes, "part_rows": args.part_rows, "model": args.model}  # fmt: skip
    kept = work / "settings.json"
    if kept.is_file() and json.loads(kept.read_text("utf-8")) != settings:
        raise SystemExit(f"--work {work}: was begun with other settings: {kept.read_text('utf-8')}")
    if not kept.is_file():
        write_pairs(args, work / "pairs.jsonl")
        kept.write_text(json.dumps(settings), "utf-8")
    sides: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for name in SIDES:
        if name != "one" and name not in args.sides:
            left_out[name] = "not asked for"
        elif name == "ray" and importlib.util.find_spec("ray") is None:
            left_out[name] = "not installed"
        else:
            if not (work / f"{name}.json").is_file():
                print(f"{name}: scoring", file=sys.stderr, flush=True)
                again = [sys.executable, "-m", "benchmarks.runs.batch_scoring", *sys.argv[1:], "--side", name]
                subprocess.run([*again, "--work", str(work)], check=True)
            sides[name] = json.loads((work / f"{name}.json").read_text("utf-8"))
    wanted = margins_in(work / "one.margins.jsonl")
    base = sides["one"]["pairs_per_second"]
    for name, row in sides.items():
        row["share_of_one_process"] = round(row["pairs_per_second"] / base, 4)
        if name != "one":
            row["same_scores"] = margins_in(*sorted((work / name).glob("part-*.jsonl"))) == wanted
    verdict = {f"{name}: 90 % of one process": row["share_of_one_process"] >= 0.9 for name, row in sides.items()}
    verdict |= {f"{name}: the same scores": row["same_scores"] for name, row in sides.items() if name != "one"}
    return {"benchmark": "batch_scoring", "settings": settings, "pairs": len(wanted), "sides": sides,
            "left_out": left_out, "verdict": verdict}  # fmt: skip


def write_pairs(args: argparse.Namespace, path: Path) -> Path:
    from prorank.data.first_stage import first_stage
    from prorank.data.load import load_collection

    collection = load_collection(args.data, args.split)
    run = first_stage("bm25", collection, args.top_k)
    with path.open("w", encoding="utf-8") as file:
        for query_id in list(run)[: args.queries]:
            for doc_id in run[query_id]:
                row = {"query_id": query_id, "query": collection.queries[query_id].text, "doc_id": doc_id,
                       "text": collection.documents[doc_id].content}  # fmt: skip
                file.write(json.dumps(row) + "\n")
    return path


def run_side(args: argparse.Namespace, work: Path) -> None:
    """Score what is left of one side's pairs, and record its rate and memory."""
    with peak_memory() as peak:
        if args.side == "one":
            one_process(args.model, work)
        else:
            job(args, work)
    stretches: dict[str, tuple[int, float]] = {}
    for line in lines(work / f"{args.side}.times.jsonl"):
        stretches[line["run"]] = (line["pairs"], line["seconds"])  # the last line of a run counts
    pairs, seconds = (sum(column) for column in zip(*stretches.values(), strict=True))
    row = {"pairs_per_second": round(pairs / seconds, 3), "seconds": round(seconds, 2), "pairs_scored": pairs,
           "runs": len(stretches), "peak_mib": round(peak[0], 1) if peak else None}  # fmt: skip
    (work / f"{args.side}.json").write_text(json.dumps(row), "utf-8")


class Times:
    """Notes after each block how many pairs this run has scored, and in how many seconds since its model was loaded."""

    def __init__(self, work: Path, side: str) -> None:
        self._path = work / f"{side}.times.jsonl"
        self._run, self._started = f"{time.time():.3f}", time.perf_counter()

    def note(self, pairs: int) -> None:
        seconds = time.perf_counter() - self._started
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": self._run, "pairs": pairs, "seconds": seconds}) + "\n")


def one_process(model: str | None, work: Path) -> None:
    from prorank import Reranker
    from prorank.progress import system_progress

    rows = list(lines(work / "pairs.jsonl"))
    pairs = [(row["query"], row["text"]) for row in rows]
    path = work / "one.margins.jsonl"
    found = len(margins_in(path))
    if path.is_file():  # without a line that a kill has cut off
        path.write_text("".join(json.dumps(row) + "\n" for row in lines(path)), "utf-8")
    reranker = Reranker.from_pretrained(model)
    reranker.score(pairs[:1])
    with system_progress("pairs") as on_system, path.open("a", encoding="utf-8") as file:
        tell, times = on_system("one", len(pairs)), Times(work, "one")
        for start in range(found, len(pairs), BLOCK):
            block = [{"margin": float(margin)} for margin in reranker.score(pairs[start : start + BLOCK])]
            file.write("".join(json.dumps(row) + "\n" for row in block))
            file.flush()
            times.note(start + len(block) - found)
            tell(start + len(block), found)


def job(args: argparse.Namespace, work: Path) -> None:
    from prorank.batch.job import OnPairs, ScoreRun, score_pairs
    from prorank.model.options import LoadOptions
    from prorank.progress import system_progress

    local = args.side == "local"
    options = LoadOptions(args.model, processes=args.processes) if local else LoadOptions(args.model, threads=1)
    run = ScoreRun(
        out=str(work / args.side), input=[str(work / "pairs.jsonl")], engine=args.side, part_rows=args.part_rows,
        concurrency=None if local else args.processes,
    )  # fmt: skip
    with system_progress("pairs") as on_system:

        def on_pairs(total: int) -> OnPairs:
            tell, times = on_system(args.side, total), Times(work, args.side)

            def note(done: int, found: int) -> None:
                if done > found:
                    times.note(done - found)
                tell(done, found)

            return note

        score_pairs(run, options, on_pairs=on_pairs)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Of a JSON-lines file, whole lines only: a last one that was cut off by a kill is left out."""
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.endswith("\n"))


def margins_in(*paths: Path) -> list[float]:
    return [line["margin"] for path in paths for line in lines(path)]


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """MiB of this process and all below it, at most so far; empty where the system does not tell."""
    peak: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            peak[:] = [max([*peak, tree_mib()])]

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def tree_mib() -> float:
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            below.setdefault(parent, []).append(int(path.parent.name))
    kilobytes, wanted = 0, [os.getpid()]
    while wanted:
        pid = wanted.pop()
        wanted += below.get(pid, [])
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            kilobytes += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kilobytes / 1024


if __name__ == "__main__":
    sys.exit(main())
