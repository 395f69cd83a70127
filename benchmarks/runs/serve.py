"""What the server costs and whether it keeps its promises: throughput beside the library's, latency, overload, memory.

    python -m benchmarks.runs.serve --append benchmarks/results/serve.jsonl  # about 20 minutes, 10 of them for memory
    python -m benchmarks.runs.serve --seconds 5 --soak-minutes 0 --clients 1 4        # does it run?
    python -m benchmarks.runs.serve --peer crossencoder
    python -m benchmarks.runs.serve --peer mxbai --peer-python .venvs/mxbai/bin/python

In one run, on the same requests: `Reranker.rank` offline; the server with 1, 4, 16 and 64 clients, each answer compared
with the offline margins; 4 times the load it can carry, where accepted requests must keep their bound and the rest get
429; a long load under which its memory must stay flat; a plain FastAPI server around another package as the peer.
Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.runs.serve_load import Job, Tally, closed_loop, open_loop

HERE = Path(__file__).resolve().parent


def main() -> int:
    args = parse()
    checked, offline, facts = offline_part(args)
    result: dict[str, Any] = {"benchmark": "serve", "settings": vars(args), "model": facts, "offline": offline}
    print_row("offline", offline)
    serve = [sys.executable, "-m", "prorank.cli.main", "serve", "--log-level", "error", *model_flags(args)]
    patient = ["--max-queue-seconds", "3600", "--max-queue-tokens", "100000000", "--request-timeout", "3600"]
    with server([*serve, *patient], args.start_timeout) as (url, pid):
        run(closed_loop(url, checked, 2, min(args.seconds, 5), args.tolerance))  # warm
        for clients in args.clients:
            row = run(closed_loop(url, checked, clients, args.seconds, args.tolerance)).row()
            # Documents differ in length and a phase ends anywhere in the round of requests: tokens compare fairly.
            row["share_of_offline"] = round(row["tokens_per_second"] / offline["tokens_per_second"], 3)
            result[f"clients_{clients}"] = row
            print_row(f"{clients} clients", row)
        if args.soak_minutes:
            result["soak"] = soak(url, pid, checked, args)
            print_row("soak", result["soak"])
    capacity = max(result[f"clients_{n}"]["documents_per_second"] for n in args.clients) / args.documents
    bound = ["--max-queue-seconds", str(args.bound)]
    with server([*serve, *bound], args.start_timeout) as (url, _):
        run(closed_loop(url, checked, 2, 5, args.tolerance))  # the server must know its own speed
        tally = run(open_loop(url, checked, 4 * capacity, args.seconds, args.tolerance))
        row = tally.row() | {"requests_per_second_sent": round(4 * capacity, 2), "bound_ms": 1000 * args.bound}
        # A request waits for what was accepted before it, at most the bound, and is then scored itself.
        allowed = 1000 * args.bound * 1.25 + 2 * (result[f"clients_{args.clients[0]}"]["p99_ms"] or 0)
        row["within_bound"] = bool(tally.answered) and row["p99_ms"] <= allowed
        result["overload"] = row
        print_row("4x overload", row)
    if args.peer:
        result["peer"] = peer(args, checked)
        for name, row in result["peer"].items():
            if isinstance(row, dict):
                print_row(f"peer, {name}", row)
    result["verdict"] = verdict(result, args)
    for name, passed in result["verdict"].items():
        print(f"{'ok  ' if passed else 'FAIL'}  {name}")
    finish(result, args)
    return 0 if all(result["verdict"].values()) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="what to serve (default: the built-in reranker)")
    parser.add_argument("--dtype", default="auto", help="precision, offline and served (default: what users get)")
    parser.add_argument("--threads", type=int, help="CPU threads of the model, offline and served")
    parser.add_argument("--seconds", type=float, default=60, help="length of each phase")
    parser.add_argument("--soak-minutes", type=float, default=10, help="length of the memory phase; 0 leaves it out")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--documents", type=int, default=20, help="documents a request")
    parser.add_argument("--requests", type=int, default=24, help="different requests, sent in turn")
    parser.add_argument("--bound", type=float, default=5, help="--max-queue-seconds of the overloaded server")
    parser.add_argument(
        "--tolerance", type=float, help="largest difference of a margin to the offline one (1e-4; bfloat16: 0.05)"
    )
    parser.add_argument("--peer", choices=("mxbai", "crossencoder"))
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peer's packages")
    parser.add_argument("--peer-clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--start-timeout", type=float, default=300)
    parser.add_argument("--append", metavar="FILE", help="also append the record to this JSON-lines file")
    return parser.parse_args()


def offline_part(args: argparse.Namespace) -> tuple[list[Job], dict[str, Any], dict[str, Any]]:
    """Requests with their offline margins, and what ``Reranker.rank`` makes of them one after the other."""
    from prorank.data.stdlib import load_stdlib
    from prorank.reranker import Reranker, default_model

    args.model = args.model or default_model()  # by name: the server must serve what its answers are compared with
    reranker = Reranker.from_pretrained(args.model, dtype=args.dtype, threads=args.threads)
    args.precision = reranker.backend.name.rsplit("-", 1)[-1]
    args.tolerance = args.tolerance or (1e-4 if args.precision == "float32" else 0.05)
    collection = load_stdlib("test")
    choose = random.Random(7)
    texts = [document.content for document in collection.documents.values()]
    queries = [query.text for query in choose.sample(list(collection.queries.values()), args.requests)]
    requests = [(query, choose.sample(texts, args.documents)) for query in queries]
    jobs = []
    for query, documents in requests:
        encoded = reranker.encode(query, documents)
        margins = {one.index: one.margin for one in reranker.rank(query, documents)}
        tokens = len(encoded.group.prefix_ids) + sum(map(len, encoded.group.own_ids))
        jobs.append(Job(query, documents, [margins[i] for i in range(len(documents))], tokens))
    tally = Tally()
    started = time.perf_counter()
    while tally.seconds < args.seconds:
        job = jobs[tally.sent % len(jobs)]
        before = time.perf_counter()
        reranker.rank(job.query, job.documents)
        tally.latencies.append(time.perf_counter() - before)
        tally.sent += 1
        tally.answered += 1
        tally.documents += len(job.documents)
        tally.tokens += job.tokens
        tally.seconds = time.perf_counter() - started
    row = tally.row()
    row["tokens_per_request"] = round(sum(job.tokens for job in jobs) / len(jobs), 1)
    if args.peer:  # the peer gets the very weights, adapters merged
        args.peer_folder = str(Path(tempfile.mkdtemp()) / "checkpoint")
        reranker.save(args.peer_folder)
    return jobs, row, {k: v for k, v in reranker.describe().items() if isinstance(v, str | int)}


def model_flags(args: argparse.Namespace) -> list[str]:
    flags = ["--dtype", args.dtype]
    flags += ["--model", args.model] if args.model else []
    return flags + (["--threads", str(args.threads)] if args.threads else [])


@contextlib.contextmanager
def server(command: Sequence[str], start_timeout: float) -> Iterator[tuple[str, int]]:
    """A server process on a free loopback port; (url, pid). Its stop must be clean."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    process = subprocess.Popen([*command, "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + start_timeout
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/ready", timeout=5).status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start: {' '.join(command)}")
            time.sleep(0.2)
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()


def soak(url: str, pid: int, jobs: Sequence[Job], args: argparse.Namespace) -> dict[str, Any]:
    """16 clients for minutes; resident memory of the server is read every few seconds."""
    seconds = 60 * args.soak_minutes
    samples: list[tuple[float, float]] = []

    async def watched() -> Tally:
        started = time.perf_counter()

        async def watch() -> None:
            while True:
                samples.append((time.perf_counter() - started, resident_mib(pid)))
                await asyncio.sleep(min(5.0, seconds / 20))

        watcher = asyncio.ensure_future(watch())
        try:
            return await closed_loop(url, jobs, 16, seconds, args.tolerance)
        finally:
            watcher.cancel()

    row = run(watched()).row()
    settled = [mib for at, mib in samples if at >= seconds * 0.2]  # caches fill and allocators settle first
    half = max(len(settled) // 2, 1)
    early, late = sorted(settled[:half])[half // 2], sorted(settled[-half:])[half // 2]
    growth = late - early
    return row | {
        "memory_mib_early": round(early, 1),
        "memory_mib_late": round(late, 1),
        "memory_mib_growth": round(growth, 1),
        "memory_flat": growth <= max(0.02 * early, 16),
    }


def resident_mib(pid: int) -> float:
    """Resident memory of a process, MiB (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peer(args: argparse.Namespace, jobs: Sequence[Job]) -> dict[str, Any]:
    """The same requests to a plain server around another package, on the same weights."""
    unchecked = [job._replace(margins=None) for job in jobs]
    rows: dict[str, Any] = {"engine": args.peer, "precision": args.precision}
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = Path(args.peer_folder)
        if args.peer == "mxbai":
            folder = for_transformers_4(folder, scratch)
        command = [args.peer_python, "-P", str(HERE / "serve_peer.py"), "--engine", args.peer, "--model", str(folder)]
        command += ["--dtype", args.precision, *(["--threads", str(args.threads)] if args.threads else [])]
        url, _ = stack.enter_context(server(command, args.start_timeout))
        run(closed_loop(url, unchecked, 1, min(args.seconds, 5), args.tolerance))
        for clients in args.peer_clients:
            row = run(closed_loop(url, unchecked, clients, args.seconds, args.tolerance)).row()
            rows[f"clients_{clients}"] = {k: v for k, v in row.items() if k not in ("wrong", "worst_difference")}
    return rows


def for_transformers_4(folder: Path, scratch: Path) -> Path:
    """A copy that transformers 4 reads: its name of the tokenizer class, and the rotary base at the top level."""
    copy = Path(shutil.copytree(folder, scratch / "model"))
    for name, change in (
        ("tokenizer_config.json", lambda _: {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ("config.json", lambda config: {"rope_theta": config["rope_parameters"]["rope_theta"]}),
    ):
        settings = json.loads((copy / name).read_text("utf-8"))
        (copy / name).write_text(json.dumps(settings | change(settings)), "utf-8")
    return copy


def verdict(result: dict[str, Any], args: argparse.Namespace) -> dict[str, bool]:
    rows = [result[f"clients_{n}"] for n in args.clients]
    promises = {
        "nothing lost, failed or refused": all(row["lost"] + row["failed"] + row["refused"] == 0 for row in rows),
        f"every answer within {args.tolerance:g} of the library's": all(row["wrong"] == 0 for row in rows),
        "overload: accepted requests keep the bound": result["overload"]["within_bound"],
        "overload: the rest is refused with 429": result["overload"]["refused"] > 0
        and not result["overload"]["failed"],
        "overload: answers stay right": result["overload"]["wrong"] == 0,
    }
    if 16 in args.clients:
        promises["16 clients: at least 90 % of the library's documents/s"] = (
            result["clients_16"]["share_of_offline"] >= 0.9
        )
    if "soak" in result:
        promises["memory stays flat"] = result["soak"]["memory_flat"]
    return promises


def run(load: Any) -> Any:
    return asyncio.run(load)


def print_row(name: str, row: dict[str, Any]) -> None:
    shown = [f"{row['documents_per_second'] or 0:8.1f} documents/s"]
    shown += [f"{p} {row[f'{p}_ms'] or 0:9.1f} ms" for p in ("p50", "p95", "p99")]
    shown += [f"{key} {row[key]}" for key in ("refused", "failed", "lost", "wrong") if row.get(key)]
    for key, text in (("share_of_offline", "of offline"), ("memory_mib_growth", "MiB grown")):
        shown += [f"{row[key]} {text}"] if key in row else []
    print(f"{name:<14} {'  '.join(shown)}", flush=True)


def finish(result: dict[str, Any], args: argparse.Namespace) -> None:
    from prorank.evaluate.record import append_record, make_record

    result["settings"] = {k: v for k, v in vars(args).items() if k not in ("append", "peer_python", "peer_folder")}
    kept = append_record(args.append, "benchmark", result) if args.append else make_record("benchmark", result)
    print(json.dumps(kept))


if __name__ == "__main__":
    sys.exit(main())
