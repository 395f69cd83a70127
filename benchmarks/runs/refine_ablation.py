"""Which stages matter: the same number of documents through the model, spent in different ways, then the same test.

    python -m benchmarks.runs.refine_ablation --out runs/ablation --append benchmarks/results/refine_ablation.jsonl

The data and the settings are the default reranker's recipe, with refine as one block; every variant gets --documents
documents, forward and backward. Warmup's share of them is --warmup-share; a variant without warmup spends it on refine,
one without refine spends all on warmup. ``supervised`` teaches the first stage's answers by cross-entropy instead of
GRPO. Steps that have ended are not run again. All variants then rerank the candidates of --queries queries of each test
collection; the table has 95 % intervals and the paired test against the whole method, Holm-corrected.
Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.runs.averages import averages
from benchmarks.runs.collections import DATA
from benchmarks.runs.results import COLLECTIONS, MEASURES, per_query, present, subset
from benchmarks.tables.writer import Record, made, table
from prorank.pipeline.train import BLOCK_KEYS

if TYPE_CHECKING:
    from prorank.evaluate.results import Evaluation

REPO = Path(__file__).resolve().parents[2]
RECIPE = REPO / "recipes" / "train" / "prorank-smollm2-135m.toml"
WHOLE = "warmup + refine"
VARIANTS: dict[str, tuple[str | None, bool]] = {
    "zero-shot": (None, False),
    "warmup only": ("grpo", False),
    "refine only": (None, True),
    "supervised + refine": ("supervised", True),
    WHOLE: ("grpo", True),
}
"""Name -> (objective of stage 1 or None, whether stage 2 follows)."""
HELD_OUT = 8
"""Queries asked before and after a stage; they choose nothing here, the last checkpoint is what is tested."""


def main() -> int:
    args = parse()
    recipe = tomllib.loads(args.recipe.read_text("utf-8"))
    models = {name: trained(name, recipe, args) for name in args.only or VARIANTS}
    evaluations = [tested(name, models, args) for name in present(args.collections, args.data)]
    rows = summary(evaluations)
    print(shown(rows))
    payload = {
        "benchmark": "refine_ablation", "documents": args.documents, "warmup_share": args.warmup_share,
        "queries": args.queries, "top_k": args.top_k, "seed": args.seed, "variants": rows,
    }  # fmt: skip
    if args.append:
        from prorank.evaluate.record import append_record

        append_record(args.append, "ablation", payload)
    print(json.dumps(payload))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="a recipe of prorank train")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the test collections")
    parser.add_argument("--collections", nargs="+", choices=list(COLLECTIONS), default=list(COLLECTIONS))
    parser.add_argument("--out", type=Path, default=Path("runs/refine-ablation"), help="default: %(default)s")
    parser.add_argument("--documents", type=int, default=4000, help="of each variant (default: %(default)s)")
    parser.add_argument("--warmup-share", type=float, default=0.25, help="of them (default: %(default)s)")
    parser.add_argument("--document-tokens", type=int, default=64, help="in training (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=40, help="tested, of each collection (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=50, help="candidates reranked (default: %(default)s)")
    parser.add_argument("--max-length", type=int, default=160, help="tokens of a prompt (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="in the test (default: by the hardware)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="these variants (default: all)")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append the record to this JSON-lines file")
    return parser.parse_args()


def trained(name: str, recipe: Mapping[str, Any], args: argparse.Namespace) -> str:
    """The variant's checkpoint; a folder that has a record is taken as it is."""
    objective, refines = VARIANTS[name]
    model, share = str(recipe["model"]), args.warmup_share if refines else 1.0
    if objective is not None:
        settings = dict(recipe["warmup"])
        each = settings["queries_per_step"] * (1 + settings.get("negatives", 3))
        settings |= {"objective": objective, "document_tokens": args.document_tokens}
        folder = args.out / f"{objective}-{share:g}"
        first = recipe["datasets"][0]
        command = ["warmup", "--model", model, "--data", first["path"], "--analysis-pairs", "0"]
        model = step(command, folder, "warmup", settings, round(args.documents * share / each), args.seed)
    if refines:
        settings = {**recipe["refine"], "document_tokens": args.document_tokens}
        settings |= {k: v for k, v in recipe.get("blocks", [{}])[0].items() if k not in ("steps", *BLOCK_KEYS)}
        settings["document_tokens"] = args.document_tokens
        if objective is None:  # nothing has taught the lower layers
            settings["freeze_layers"] = 0
        each = settings["queries_per_step"] * settings["list_size"]
        left = args.documents * (1 - (args.warmup_share if objective else 0.0))
        folder = args.out / f"{name.replace(' ', '-').replace('-+-', '-')}-refined"
        args.out.mkdir(parents=True, exist_ok=True)
        config = write_datasets(recipe, args.out)
        command = ["refine", "--model", model, "--config", str(config)]
        for spec in recipe.get("test", []):
            command += ["--exclude", spec]
        model = step(command, folder, "refine", settings, round(left / each), args.seed)
    return model


def write_datasets(recipe: Mapping[str, Any], out: Path) -> Path:
    """The recipe's datasets as a configuration of ``prorank refine``."""
    lines = [f"first_stage = {json.dumps(recipe.get('first_stage', 'bm25'))}"]
    for spec in recipe["datasets"]:
        lines += ["", "[[datasets]]", *(f"{key} = {json.dumps(value)}" for key, value in spec.items())]
    path = out / "datasets.toml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def step(command: list[str], folder: Path, section: str, settings: dict[str, Any], steps: int, seed: int) -> str:
    """Run a stage, unless its folder has a record; the checkpoint that it leaves."""
    if not (folder / "records.jsonl").is_file():
        once = max(steps, 1)
        settings |= {"steps": once, "eval_every": once, "save_every": once, "held_out_queries": HELD_OUT, "seed": seed}
        flags = [word for key, value in settings.items() for word in (f"--{section}.{key}", literal(value))]
        print(f"== {folder.name}: {settings['steps']} steps", file=sys.stderr, flush=True)
        whole = [sys.executable, "-m", "prorank.cli.main", *command, "--out", str(folder), *flags]
        subprocess.run(whole, check=True, stdout=sys.stderr)
    return str(folder / "last")


def literal(value: Any) -> str:
    """A setting as a flag takes it."""
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


def tested(name: str, models: Mapping[str, str], args: argparse.Namespace) -> Evaluation:
    """All variants on one collection."""
    from prorank.data import first_stage, load_collection
    from prorank.evaluate.evaluation import Peer, evaluate
    from prorank.evaluate.results import Options
    from prorank.evaluate.systems import RerankerSystem
    from prorank.progress import system_progress
    from prorank.reranker import Reranker

    split, spec, min_relevance = COLLECTIONS[name]
    collection = subset(load_collection(args.data / name, split), args.queries)

    def load(label: str, model: str) -> RerankerSystem:
        reranker = Reranker.from_pretrained(model, dtype=args.dtype, max_length=args.max_length)
        return RerankerSystem(reranker, name=label)

    peers = [Peer(lambda label=label, model=model: load(label, model)) for label, model in models.items()]
    with system_progress() as on_system:
        return evaluate(
            collection, first_stage(spec, collection, args.top_k), peers, args.out / f"test-{name}",
            first_stage="first stage", top_k=args.top_k, on_system=on_system,
            options=Options(measures=MEASURES, min_relevance=min_relevance, against=WHOLE if WHOLE in models else None),
        )  # fmt: skip


def summary(evaluations: list[Evaluation]) -> dict[str, dict[str, Any]]:
    """Variant -> collection, or "average" -> nDCG@10 with its interval, and the test against the whole method."""
    rows: dict[str, dict[str, Any]] = {}
    for one in evaluations:
        for row in one.rows:
            interval = row.intervals[MEASURES[0]]
            against = row.versus.get(WHOLE, {}).get(MEASURES[0])
            figures = {"mean": interval.mean, "low": interval.low, "high": interval.high}
            rows.setdefault(row.name, {})[one.collection.name] = {
                **figures, "p_holm": against.p_holm if against else None,
            }  # fmt: skip
    for name, found in averages([per_query(one)["values"] for one in evaluations], [WHOLE]).items():
        tested = found.pop("versus").get(WHOLE)
        rows[name]["average"] = {**found, "p_holm": tested["p_holm"] if tested else None}
    return rows


def shown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A line a variant: means with intervals, and p against the whole method."""
    places = list(next(iter(rows.values())))
    lines = []
    for variant, found in rows.items():
        cells = []
        for place in places:
            cell = found[place]
            p = "" if cell["p_holm"] is None else f", p {cell['p_holm']:.3f}"
            cells.append(f"{cell['mean']:.4f} [{cell['low']:.4f}, {cell['high']:.4f}]{p}")
        lines.append([variant, *cells])
    return table(["nDCG@10", *places], lines)


def page(record: Record) -> str:
    """The table with what it was made by."""
    return (
        f"{shown(record['variants'])}\n\n{record['documents']} documents through the model for each variant, "
        f"{record['warmup_share']:.0%} of them in stage 1 where both stages run; {record['queries']} queries of each "
        f"collection, the first stage's top {record['top_k']}; p: paired randomisation test against "
        f'"{WHOLE}", Holm-corrected; {made(record)}.'
    )


if __name__ == "__main__":
    raise SystemExit(main())
