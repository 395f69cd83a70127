"""How fast and how large: our scoring beside mxbai-rerank's and sentence-transformers', same weights, same pairs.

    python -m benchmarks.runs.scoring --append benchmarks/results/scoring.jsonl
    python -m benchmarks.runs.scoring --repeats 1 --queries 1 --documents 4          # does it run?
    python -m benchmarks.runs.scoring --mxbai-python .venvs/mxbai/bin/python    # an existing environment

Every side is a process of its own with its package's default settings on the CPU. The sides take turns: repeat r gives
the same queries' candidates (BM25's top 100, a real collection) to each of them, another repeat gives other queries.
`--documents 100` scores all candidates and takes over an hour on two cores; the default takes 10 of each query's 100
that are neighbours in length, short ones of one query and long ones of another: like a bucket of the peers' batches,
so that nobody is charged for padding.
The weights are the built-in base's in float32. mxbai-rerank asks in its own prompt, so ours runs twice: with the very
same prompt (preset ``mxbai-rerank-v2``; the scores must be equal) and with our own. CrossEncoder reads our saved folder
and so asks in our prompt. Time is from texts to scores, tokenisation included; loading and a first call with 32
documents (the peers' default batch) are left out. Memory is the process's peak (VmHWM), that first call and the
imports included; what the imports alone take is listed too.
Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.runs.collections import DATA
from benchmarks.runs.turns import Jobs, Side, ended, take_turns

MXBAI = ("torch==2.13.0", "transformers<5", "mxbai-rerank==0.1.6")
PEER, EQUAL = "mxbai-rerank", "prorank fp32, mxbai prompt"


def main() -> int:
    args = parse()
    repeats, first = pairs_of(args)
    with tempfile.TemporaryDirectory(prefix="prorank-bench-") as scratch:
        running = take_turns(sides(args, Path(scratch), first), repeats)
    result = summary(args, running)
    print_table(result)
    return ended(result, args.append)


def parser_of(doc: str | None, *, queries: int, documents: int) -> argparse.ArgumentParser:
    """The flags that say which pairs are scored, and where the record goes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA / "nfcorpus", help="a BEIR folder (default: %(default)s)")
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=queries, help="queries in each repeat (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="each with other queries (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=100, help="BM25's candidates a query (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=documents, help="of them scored (default: %(default)s)")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a whole prompt (default: %(default)s)")
    parser.add_argument("--only", nargs="*", help="these sides (default: all)")
    parser.add_argument("--mxbai-python", help=f"a Python with {', '.join(MXBAI)}; default: one made in the cache")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the record to this file")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, its data checked."""
    args = parser.parse_args()
    if not args.data.is_dir():
        parser.error(f"--data {args.data}: no such folder (expected a BEIR folder)")
    return args


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The command line for the record, without this machine's paths."""
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    return settings | {"data": args.data.name, "append": None, "mxbai_python": None}


def parse() -> argparse.Namespace:
    parser = parser_of(__doc__, queries=4, documents=10)
    parser.add_argument("--model", default="smollm2-135m", help="a base in float32 (default: %(default)s)")
    return parsed(parser)


def pairs_of(args: argparse.Namespace) -> tuple[list[Jobs], Jobs]:
    """Per repeat its queries with BM25's candidates, and the first call: queries spread over the split, none twice."""
    from prorank.data.first_stage import first_stage
    from prorank.data.load import load_collection

    collection = load_collection(args.data, args.split)
    run = first_stage("bm25", collection, args.top_k)
    full = [query_id for query_id, ranked in run.items() if len(ranked) == args.top_k]
    wanted = args.queries * args.repeats
    if len(full) < wanted:
        raise SystemExit(f"--queries x --repeats: {wanted} queries wanted, {len(full)} have {args.top_k} candidates")
    chosen = [full[i * len(full) // wanted] for i in range(wanted)]
    jobs = []
    for number, query_id in enumerate(chosen):
        texts = [collection.documents[doc_id].content for doc_id in run[query_id]]
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        start = round(max(len(texts) - args.documents, 0) * number / max(wanted - 1, 1))
        kept = sorted(by_length[start : start + args.documents])  # in BM25's order
        jobs.append((collection.queries[query_id].text, [texts[i] for i in kept]))
    unused = next((query_id for query_id in full if query_id not in chosen), chosen[0])
    first = [collection.documents[doc_id].content for doc_id in run[unused]][:32]
    return [jobs[repeat :: args.repeats] for repeat in range(args.repeats)], [(collection.queries[unused].text, first)]


def sides(args: argparse.Namespace, scratch: Path, warm: Jobs) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (interpreter, what its process is told)."""
    from prorank import Reranker
    from prorank.model.base import resolve_base

    base = Path(resolve_base(args.model))

    def ours(dtype: str, **more: Any) -> tuple[str, dict[str, Any]]:
        arguments = {"dtype": dtype, "max_length": args.max_length, **more}
        return sys.executable, {"kind": "prorank", "folder": str(base), "arguments": arguments, "warm": warm}

    with_mxbai, saved = scratch / "mxbai", scratch / "saved"
    wanted = args.only
    plan: dict[str, tuple[str, dict[str, Any]]] = {}
    if not wanted or any("mxbai" in name for name in wanted):
        python = args.mxbai_python or mxbai_environment()
        for_transformers_4(base, with_mxbai)
        content = content_length(base, args.max_length)
        same = {"template": "mxbai-rerank-v2", "query_max_length": content * 3 // 4}
        told = {"kind": "mxbai", "folder": str(with_mxbai), "max_length": args.max_length, "warm": warm}
        plan[PEER] = (python, told)
        plan[EQUAL] = ours("float32", **same)
        plan["prorank bf16, mxbai prompt"] = ours("bfloat16", **same)
    Reranker.from_pretrained(base, dtype="float32", max_length=args.max_length).save(saved)
    plan["CrossEncoder"] = (sys.executable, {"kind": "cross-encoder", "folder": str(saved), "warm": warm})
    plan["prorank fp32"] = ours("float32")
    plan["prorank bf16"] = ours("bfloat16")
    return {name: side for name, side in plan.items() if not wanted or name in wanted}


def content_length(base: Path, max_length: int) -> int:
    """What mxbai-rerank's own limit is where whole prompts have ``max_length`` tokens."""
    from transformers import AutoTokenizer

    from prorank.prompt.presets import PRESETS

    tokenizer = AutoTokenizer.from_pretrained(base)
    static = [piece.text for piece in PRESETS["mxbai-rerank-v2"].pieces if piece.kind == "static"]
    # Its constant parts; the line break before the document belongs to the content there.
    fixed = [static[0], static[-1]]
    return max_length - sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in fixed)


def for_transformers_4(base: Path, folder: Path) -> None:
    """A copy in the words of transformers 4: its tokenizer class, and the rotary base at the top level."""
    shutil.copytree(base, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"rope_theta": config["rope_parameters"]["rope_theta"]}))


def mxbai_environment() -> str:
    """The interpreter of a virtual environment with mxbai-rerank in prorank's cache, made where it is not there."""
    from prorank.cache import cache_dir

    folder = cache_dir("venvs", "mxbai-rerank-0.1.6")
    done = folder / "complete"
    python = folder / "bin" / "python"
    if not done.is_file():
        print(f"installing {', '.join(MXBAI)} into the cache, once", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *MXBAI], check=True, stdout=sys.stderr)
        done.touch()
    return str(python)


def summary(args: argparse.Namespace, running: list[Side]) -> dict[str, Any]:
    rows = {side.name: side.row() for side in running}
    by_name = {side.name: side for side in running}
    settings = settings_of(args)
    result: dict[str, Any] = {"benchmark": "scoring", "settings": settings, "sides": rows, "ratios": {}, "verdict": {}}
    equal = [(PEER, EQUAL), ("CrossEncoder", "prorank fp32")]
    for theirs, ours in equal:
        if theirs in by_name and ours in by_name:
            pairs = zip(by_name[theirs].scores(), by_name[ours].scores(), strict=True)
            difference = max(abs(a - b) for a, b in pairs)
            result["ratios"][f"{ours}: largest margin difference from {theirs}"] = difference
    for theirs in (PEER, "CrossEncoder"):
        for ours in rows if theirs in rows else ():
            if ours.startswith("prorank"):
                # of the medians over repeats of one and the same turn: both sides saw the same pairs then
                speed = [
                    a["pairs_per_second"] / b["pairs_per_second"]
                    for a, b in zip(by_name[ours].results, by_name[theirs].results, strict=True)
                ]
                result["ratios"][f"{ours}: times {theirs}'s speed"] = round(statistics.median(speed), 2)
                memory = rows[ours]["peak_mib"] / rows[theirs]["peak_mib"]
                result["ratios"][f"{ours}: share of {theirs}'s peak memory"] = round(memory, 3)
    ratios = result["ratios"]
    wanted = {
        "bf16, our prompt: 4 times mxbai-rerank's speed": (f"prorank bf16: times {PEER}'s speed", 4.0),
        "fp32, same prompt: 2 times mxbai-rerank's speed": (f"{EQUAL}: times {PEER}'s speed", 2.0),
    }
    for name, (ratio, least) in wanted.items():
        if ratio in ratios:
            result["verdict"][name] = ratios[ratio] >= least
    if f"{EQUAL}: share of {PEER}'s peak memory" in ratios:
        shares = [value for name, value in ratios.items() if name.endswith(f"{PEER}'s peak memory")]
        result["verdict"]["half of mxbai-rerank's peak memory, all of ours"] = max(shares) <= 0.5
    differences = [value for name, value in ratios.items() if "margin difference" in name]
    if differences:
        result["verdict"]["equal scores in fp32: within 1e-4"] = max(differences) <= 1e-4
    return result


def print_table(result: dict[str, Any]) -> None:
    settings = result["settings"]
    print(
        f"{settings['data']} {settings['split']}: {settings['repeats']} repeats of {settings['queries']} queries, "
        f"{settings['documents']} of BM25's top {settings['top_k']} each, whole prompts of at most "
        f"{settings['max_length']} tokens, {settings['model']}"
    )
    print(f"{'side':<28}{'pairs/s':>9}{'peak MiB':>10}{'imports MiB':>13}  repeats, pairs/s")
    for name, row in result["sides"].items():
        repeats = " ".join(f"{speed:.2f}" for speed in row["repeats"])
        print(f"{name:<28}{row['pairs_per_second']:>9.2f}{row['peak_mib']:>10.0f}{row['import_mib']:>13.0f}  {repeats}")
    for name, value in result["ratios"].items():
        print(f"{name}: {value:.2g}" if "difference" in name else f"{name}: {value}")
    for name, passed in result["verdict"].items():
        print(f"{'ok  ' if passed else 'FAIL'}  {name}")


if __name__ == "__main__":
    sys.exit(main())
