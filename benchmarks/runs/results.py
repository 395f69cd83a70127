"""What the built-in rerankers are worth: all stages beside BM25 and MiniLM on the collections kept for measuring.

    make results                                                         # repeat the last committed record, and compare
    python -m benchmarks.runs.results                                         # all queries, float32: hours on 2 cores
    python -m benchmarks.runs.results --queries 100 --dtype bfloat16 --append benchmarks/results/results.jsonl
    python -m benchmarks.runs.results --queries 80 nfcorpus=0                 # all of NFCorpus

Every system reranks the same candidates: BM25's top 100 (of DL19, the list that came with it). `--queries N` takes N
queries by the hash of their ids, those that `prorank train` would test on. Each collection is a folder in --out with
run files, per-query values and a report; what was scored is kept there, and the same command goes on from it. --check
compares every figure of the quality and comparison tables, to 4 decimals, with the last record that has the settings
given (the others are taken from it); exit code 1 where one differs. Prints tables, and one JSON line last.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.runs.averages import averages
from benchmarks.runs.collections import DATA
from benchmarks.tables.records import FILE, MEASURE, cells
from benchmarks.tables.results import comparisons, quality, spread
from benchmarks.tables.writer import Record, records, table

if TYPE_CHECKING:
    from prorank.data.collection import Collection
    from prorank.evaluate.evaluation import Peer
    from prorank.evaluate.results import Evaluation
    from prorank.evaluate.systems import System
    from prorank.types import Run

COLLECTIONS = {"nfcorpus": ("test", "bm25", 1), "scifact": ("test", "bm25", 1), "dl19": ("test", "given:bm25", 2)}
"""Name -> (split, first stage, the least judgment that binary measures call relevant)."""
MODELS = {"base": "smollm2-135m", "warmup": "prorank-smollm2-135m-warmup", "refined": "prorank-smollm2-135m"}
"""Stage -> model."""
FUSIONS = {"fused": "minilm", "refined+bm25": "refined"}
"""System -> whose ranks are fused with BM25's, by their reciprocals (k 60)."""
SYSTEMS = ("minilm", "fused", *MODELS, "refined+bm25")
MEASURES = (MEASURE, "RR@10", "R@100")
TOP_K = 100
DEFAULTS: dict[str, Any] = {
    "queries": 0, "max_length": 0, "dtype": "float32", "collections": list(COLLECTIONS), "systems": list(SYSTEMS),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    args = parsed(argv)
    try:
        return run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"results: error: {error}", file=sys.stderr)
        return 2


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a setting that is not given is not in the namespace."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], argument_default=argparse.SUPPRESS)
    parser.add_argument(
        "--queries", nargs="+", metavar="[NAME=]N", action=Queries,
        help="of each collection, or of the one named, by hash of the id (0: all)",
    )  # fmt: skip
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of a prompt (0: each model's own limit)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the rerankers (default: float32)")
    parser.add_argument("--collections", nargs="+", choices=list(COLLECTIONS), help="default: all")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, help="besides BM25 (default: all)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the collections")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="default: %(default)s")
    parser.add_argument("--restart", nargs="+", choices=SYSTEMS, default=[], help="score these anew")
    parser.add_argument("--append", type=Path, default=None, metavar="FILE", help="append the record line")
    parser.add_argument("--check", action="store_true", default=False, help="compare with the committed record")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: the best there is)")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads (default: all cores)")
    return parser.parse_args(argv)


class Queries(argparse.Action):
    """``80`` -> 80; ``80 nfcorpus=0`` -> how many of each collection."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        found: dict[str, int] = {}
        for value in values:
            name, _, number = value.rpartition("=")
            if not number.isdigit() or name not in ("", *COLLECTIONS):
                parser.error(f"--queries: expected N or NAME=N with one of {', '.join(COLLECTIONS)}, got {value!r}")
            found |= {name: int(number)} if name else dict.fromkeys(COLLECTIONS, int(number)) | found
        same = len(found) == len(COLLECTIONS) and len(set(found.values())) == 1
        namespace.queries = next(iter(found.values())) if same else {name: found.get(name, 0) for name in COLLECTIONS}


def run(args: argparse.Namespace) -> int:
    given = {name: vars(args)[name] for name in DEFAULTS if name in args}
    settings, expected = {**DEFAULTS, **given}, None
    if args.check:
        expected = last_record(given)
        settings = dict(expected["settings"])
    settings["systems"] = shipped(settings["systems"])
    evaluations = [measured(name, settings, args) for name in present(settings["collections"], args.data)]
    settings["collections"] = [one.collection.name for one in evaluations]
    from prorank.evaluate.record import append_line, make_record

    values = [per_query(one) for one in evaluations]
    payload = {
        "settings": settings,
        "collections": [
            {"dataset": one.record["dataset"], "systems": one.record["systems"], "per_query": found}
            for one, found in zip(evaluations, values, strict=True)
        ],
        "average": averages([found["values"] for found in values]),
    }
    record = make_record("results", payload)
    print(f"{quality(record)}\n\n{comparisons(record)}\n")
    if args.append is not None:
        append_line(args.append, record)
    code = 0 if expected is None else compared(record, expected)
    print(json.dumps({"benchmark": "results", "settings": settings, "average": record["average"]}))
    return code


def last_record(given: Mapping[str, Any]) -> Record:
    """The last committed record with these settings.

    Raises:
        ValueError: there is none.
    """
    found = [r for r in records(FILE) if all(r["settings"][name] == value for name, value in given.items())]
    if not found:
        raise ValueError(f"--check: {FILE} has no record with the settings {json.dumps(given)}: nothing to repeat")
    return found[-1]


def shipped(systems: Sequence[str]) -> list[str]:
    """The systems without those whose model does not come with the package yet."""
    from prorank.model.checkpoint import built_in_rerankers

    kept = []
    for name in systems:
        model = MODELS.get(FUSIONS.get(name, name), "")
        if model.startswith("prorank-") and model not in built_in_rerankers():
            print(f"{model} does not come with the package yet: {name} is left out", file=sys.stderr)
        else:
            kept.append(name)
    return kept


def present(collections: Sequence[str], data: Path) -> list[str]:
    """The collections that are there.

    Raises:
        ValueError: none is.
    """
    found = [name for name in collections if (data / name).is_dir()]
    for name in collections:
        if name not in found:
            print(f"{name}: there is no folder {data / name}: skipped", file=sys.stderr)
    if not found:
        raise ValueError(f"--data: {data} holds none of {', '.join(collections)}")
    return found


def measured(name: str, settings: Mapping[str, Any], args: argparse.Namespace) -> Evaluation:
    """All systems on one collection, by what `prorank evaluate` does."""
    from prorank.data import first_stage, load_collection
    from prorank.evaluate.evaluation import evaluate
    from prorank.evaluate.results import Options
    from prorank.progress import system_progress

    split, spec, min_relevance = COLLECTIONS[name]
    queries = settings["queries"]
    collection = subset(
        load_collection(args.data / name, split), queries[name] if isinstance(queries, dict) else queries
    )
    candidates = first_stage(spec, collection, TOP_K)
    folder = args.out / f"{name}-{split}"
    for system in args.restart:
        (folder / "journal" / f"{system}.jsonl").unlink(missing_ok=True)
    against = "minilm" if "minilm" in settings["systems"] else None
    with system_progress() as on_system:
        return evaluate(
            collection, candidates, peers(collection, candidates, folder, settings, args, on_system), folder,
            first_stage="bm25", top_k=TOP_K, on_system=on_system,
            options=Options(measures=MEASURES, min_relevance=min_relevance, against=against),
        )  # fmt: skip


def per_query(evaluation: Evaluation) -> dict[str, Any]:
    """nDCG@10 of each query, to 6 decimals: ``queries`` are their ids, ``values`` a system's figures in that order."""
    queries = sorted(evaluation.collection.qrels)
    values = {row.name: row.measured.values[MEASURE] for row in evaluation.rows}
    return {
        "queries": queries,
        "values": {name: [round(float(found[q]), 6) for q in queries] for name, found in values.items()},
    }


def subset(collection: Collection, queries: int) -> Collection:
    """So many judged queries, by the hash of their ids; all for 0."""

    def place(query_id: str) -> int:
        return int(hashlib.sha256(f"test:{query_id}".encode()).hexdigest()[:8], 16)

    judged = [q for q in collection.queries if q in collection.qrels]
    kept = sorted(sorted(judged, key=place)[: queries or None])
    return replace(
        collection,
        queries={q: collection.queries[q] for q in kept},
        qrels={q: collection.qrels[q] for q in kept},
    )


def peers(
    collection: Collection, candidates: Run, folder: Path, settings: Mapping[str, Any], args: argparse.Namespace,
    on_system: Any,
) -> list[Peer]:  # fmt: skip
    """Everything but the first stage; whatever a fusion takes ranks from is run here already."""
    from prorank.data.first_stage import fuse
    from prorank.evaluate.evaluation import Peer
    from prorank.evaluate.run import run_system

    @functools.cache
    def system(name: str) -> System:
        return minilm(collection) if name == "minilm" else reranker(name, settings, args)

    found = []
    for name in settings["systems"]:
        if name in FUSIONS:
            part = FUSIONS[name]
            on_query = on_system(part, sum(map(bool, candidates.values())))
            ranks = run_system(system(part), collection, candidates, folder, on_query=on_query).run
            found.append(Peer(None, (name, fuse([candidates, ranks], TOP_K))))
        else:
            found.append(Peer(functools.partial(system, name)))
    return found


def minilm(collection: Collection) -> System:
    from prorank.evaluate.systems import BiEncoderSystem

    system = BiEncoderSystem()
    system.name = "minilm"
    system.preload(collection)
    return system


def reranker(name: str, settings: Mapping[str, Any], args: argparse.Namespace) -> System:
    from prorank.evaluate.systems import RerankerSystem
    from prorank.reranker import Reranker

    options = {"dtype": settings["dtype"], "max_length": settings["max_length"] or None}
    model = Reranker.from_pretrained(MODELS[name], device=args.device, threads=args.threads, **options)
    return RerankerSystem(model, name=name)


def compared(record: Record, expected: Record) -> int:
    """Print the figures that differ; 0 where none does, else 1."""
    now, then = figures(record), figures(expected)
    rows = [
        [name, then.get(name, "–"), now.get(name, "–")] for name in {**then, **now} if now.get(name) != then.get(name)
    ]
    origin = f"the record of {expected['time']}, commit {str(expected['commit'])[:12]}"
    if rows:
        print(f"{len(rows)} of {len({**then, **now})} figures are not those of {origin}:\n")
        print(table(["figure", "recorded", "now"], rows))
        return 1
    print(f"all {len(now)} figures are those of {origin}")
    return 0


def figures(record: Record) -> dict[str, str]:
    """Every reported figure as it is printed, and the hashes of what it was measured on."""
    flat: dict[str, str] = {}
    for part in record["collections"]:
        name = part["dataset"]["name"]
        flat |= {f"{name} {key}": str(value)[:12] for key, value in part["dataset"].items() if key.endswith("sha256")}
        for system in part["systems"]:
            flat[f"{name} {system['name']} weights"] = str(system["description"].get("weights_sha256"))[:12]
            for measure, interval in system["measures"].items():
                flat[f"{name} {system['name']} {measure}"] = spread(interval)
    for name, row in cells(record).items():
        for where, found in row.items():
            flat[f"{where} {name}"] = spread(found)
            for other, tested in found["versus"].items():
                flat[f"{where} {name} against {other}"] = f"{spread(tested, '+')}, p {tested['p_holm']:.4f}"
    return flat


if __name__ == "__main__":
    raise SystemExit(main())
