"""Hard lists with a teacher's scores, for a machine with a slow teacher: few candidates a query, of every kind.

    python tools/hard_lists.py --out lists
    prorank train --config recipes/train/prorank-qwen2.5-coder-0.5b.toml            (reads lists/NAME.jsonl)
    python tools/hard_lists.py --round 2 --out lists/2
    prorank refine --config recipes/refine/prorank-qwen2.5-coder-0.5b-round-2.toml  (reads lists/2/NAME.jsonl)

A teacher that embeds six passages a second cannot score whole corpora. This takes some queries of each collection below
and, of each query's candidates, one of every stretch of the order, so that lists still reach from the best to the
worst. What the collections of ``--measured`` hold too is left out. Each result is a BEIR folder with the run ``given``
and, where labels are used, the run ``labels``, which is one of its teachers; ``prorank teach`` then scores it.

Round 2 takes other queries, more collections and more of each list. MiniLM stands in for all-mpnet-base-v2 there: with
SPLADE-tiny it orders TREC DL 2019 about as well (.701 against .707) and embeds six times as many passages a second.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "src"))

from prorank.cli.main import main as prorank  # noqa: E402
from prorank.data.beir import write_beir  # noqa: E402
from prorank.data.collection import Collection  # noqa: E402
from prorank.data.first_stage import first_stage  # noqa: E402
from prorank.data.load import load_collection  # noqa: E402
from prorank.data.overlap import find_overlap, without  # noqa: E402
from prorank.data.trec import write_run  # noqa: E402
from prorank.types import Run  # noqa: E402

MEASURED = ("dl19:test", "scifact:test", "nfcorpus:test", "cosqa:dev", "wikiqa:dev", "xquad-zh:test")


class Source(NamedTuple):
    """Which queries and candidates of a collection are taken, and who scores them."""

    name: str
    teacher: str
    """As ``prorank teach --teacher`` takes it."""
    queries: int
    candidates: int
    first_stage: str = "bm25"
    depth: int = 50
    relevance: int | None = 1
    """A grade of at least this much is a label; None: its judgments are not used."""
    skip: int = 0
    """So many queries were taken in an earlier round."""


WEB = "mixture:splade-tiny+all-mpnet-base-v2+given:teacher-splade"
WEB_FAST = "mixture:splade-tiny+all-minilm-l6-v2+given:teacher-splade"
LABELLED = "mixture:splade-tiny+all-minilm-l6-v2+0.6*given:labels"
SCIENCE = "mixture:splade-tiny+all-minilm-l6-v2+bm25+0.9*given:labels"
CODE = "mixture:all-minilm-l6-v2+0.3*given:labels"
FIRST = (
    Source("dl22-lists", WEB, 76, 32, "given:given", 200, None),
    Source("dl21-lists", WEB, 53, 32, "given:given", 200, None),
    Source("msmarco-sample", LABELLED, 120, 16),
    Source("nq-sample", LABELLED, 30, 16),
    Source("pubmedqa", SCIENCE, 30, 16),
    Source("code-pairs", CODE, 60, 16),
    Source("zh-rgb", "mixture:given:labels", 40, 16, "given:given", 40),
    Source("cqa-questions", LABELLED, 40, 10, "given:given", 10, 2),
)
SECOND = (
    Source("dl22-lists", WEB_FAST, 76, 48, "given:given", 200, None),
    Source("dl21-lists", WEB_FAST, 53, 48, "given:given", 200, None),
    Source("msmarco-sample", LABELLED, 240, 16, skip=120),
    Source("nq-sample", LABELLED, 70, 16, skip=30),
    Source("pubmedqa", SCIENCE, 90, 16, skip=30),
    Source("climate-fever", SCIENCE, 60, 16, relevance=2),
    Source("hotpotqa", LABELLED, 60, 10, "given:given", 10),
    Source("code-pairs", CODE, 90, 16, skip=60),
    Source("zh-rgb", "mixture:given:labels", 70, 16, "given:given", 40, skip=40),
    Source("cqa-questions", LABELLED, 60, 10, "given:given", 10, 2, skip=40),
)
ROUNDS = {1: FIRST, 2: SECOND}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the collections")
    parser.add_argument("--measured", nargs="*", default=list(MEASURED), metavar="DATA:SPLIT")
    parser.add_argument("--round", type=int, choices=sorted(ROUNDS), default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    measured = [
        load_collection(name, split or None) for name, _, split in (one.partition(":") for one in args.measured)
    ]
    for source in ROUNDS[args.round]:
        collection = load_collection(source.name, "train")
        collection = without(collection, find_overlap(collection, measured))
        chosen = _queries(collection, source, args.seed)
        lists, runs = _lists(chosen, source, args.seed)
        _write(chosen, lists, runs, args.out / source.name)
        _teach(source, args.out)
        print(f"{source.name}: {len(lists)} queries, {sum(map(len, lists.values()))} candidates")
    return 0


def _queries(collection: Collection, source: Source, seed: int) -> Collection:
    ids = sorted(collection.queries)
    random.Random(f"{seed}:{source.name}").shuffle(ids)
    ids = ids[source.skip : source.skip + source.queries]
    return replace(
        collection,
        queries={q: collection.queries[q] for q in ids},
        qrels={q: collection.qrels[q] for q in ids if q in collection.qrels},
    )


def _lists(collection: Collection, source: Source, seed: int) -> tuple[Run, dict[str, Run]]:
    """Of each query's candidates an even share of every stretch, every labelled one, and scores of those chosen."""
    stage = first_stage(source.first_stage, collection, source.depth)
    taught = "teacher-splade" in collection.runs
    teacher = first_stage("given:teacher-splade", collection, source.depth) if taught else {}
    lists: Run = {}
    labels: Run = {}
    scored: Run = {}
    for query_id in collection.queries:
        # A teacher's order where there is one: the lists shall span its scores.
        order = list(dict.fromkeys([*teacher.get(query_id, ()), *stage.get(query_id, ())]))[: source.depth]
        relevant = _labelled(collection, query_id, source)
        wanted = set(_spread(order, source.candidates, random.Random(f"{seed}:{query_id}")))
        if relevant:
            kept = [doc_id for doc_id in relevant if doc_id in order or len(relevant) <= 2][: source.candidates // 2]
            wanted |= set(kept)
        taken = [doc_id for doc_id in order if doc_id in wanted]
        taken += [doc_id for doc_id in relevant if doc_id in wanted.difference(order)]
        if len(taken) < 4:
            continue
        lists[query_id] = {doc_id: float(-rank) for rank, doc_id in enumerate(taken)}
        if relevant:
            labels[query_id] = {doc_id: float(doc_id in relevant) for doc_id in taken}
        if query_id in teacher:
            lowest = min(teacher[query_id].values())
            scored[query_id] = {doc_id: teacher[query_id].get(doc_id, lowest) for doc_id in taken}
    return lists, {name: run for name, run in (("labels", labels), ("teacher-splade", scored)) if run}


def _labelled(collection: Collection, query_id: str, source: Source) -> list[str]:
    if source.relevance is None:
        return []
    judged = collection.qrels.get(query_id, {})
    return [d for d, grade in judged.items() if grade >= source.relevance and d in collection.documents]


def _spread(order: list[str], count: int, chance: random.Random) -> list[str]:
    """One of each of ``count`` equal stretches of the order, by chance."""
    if len(order) <= count:
        return order
    edges = [round(i * len(order) / count) for i in range(count + 1)]
    return [order[chance.randrange(low, high)] for low, high in itertools.pairwise(edges)]


def _write(collection: Collection, lists: Run, runs: dict[str, Run], folder: Path) -> None:
    held = {doc_id for scores in lists.values() for doc_id in scores}
    small = replace(
        collection,
        documents={d: document for d, document in collection.documents.items() if d in held},
        queries={q: query for q, query in collection.queries.items() if q in lists},
        qrels={q: {d: 1 for d, score in runs.get("labels", {}).get(q, {}).items() if score} for q in lists},
        split="train",
    )
    write_beir(small, folder)
    (folder / "runs").mkdir(exist_ok=True)
    for name, run in {"given": lists, **runs}.items():
        write_run(folder / "runs" / f"{name}.train.trec.gz", run)


def _teach(source: Source, out: Path) -> None:
    words = ["--data", str(out / source.name), "--split", "train", "--first-stage", "given:given", "--top-k", "40"]
    words += ["--teacher", source.teacher, "--out", str(out / f"{source.name}.jsonl")]
    if status := prorank(["teach", *words]):
        raise SystemExit(status)


if __name__ == "__main__":
    raise SystemExit(main())
