"""Warmup, mining, refine, evaluation and a report by one command, on anybody's queries and documents.

Nothing but --data is needed: a fifth of the queries is kept for the test, chosen by the hash of their ids, and never
trained on. Every step is skipped where it has ended and resumed where it was interrupted. The report says whether
training helped, with intervals and a test.

  prorank train --data my_folder --out runs/mine
  prorank train --config recipes/train/smollm2-135m-cpu.toml
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prorank.cli._model import positive
from prorank.config import add_config_arguments, build_config, first_difference, overrides, read_config, run_options
from prorank.pipeline.candidates import add_own_documents, lists_of
from prorank.pipeline.checks import training_ready
from prorank.pipeline.datasets import EvaluationSet, datasets_there, load_dataset, load_tests, read_specs
from prorank.training.refine.config import RefineConfig
from prorank.training.warmup.config import WarmupConfig

if TYPE_CHECKING:
    from prorank.data.collection import Collection
    from prorank.evaluate.results import Evaluation
    from prorank.types import Run

__all__ = ["add_arguments", "run"]

_RUN_KEYS = (
    "model", "data", "split", "out", "test", "test_share", "first_stage", "teacher", "instruction", "template",
    "max_length", "device", "threads", "eval_top_k", "test_top_k", "test_queries",
    "test_stages", "own_documents",
)  # fmt: skip

_STAGES = ("base", "warmed-up", "refined")

BLOCK_KEYS = ("name", "remine", "checkpoint")
"""What a ``[[blocks]]`` table may hold besides refine settings."""
_TABLES = ("warmup", "refine", "datasets", "blocks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank train``."""
    parser.add_argument(
        "--config", metavar="FILE",
        help="TOML or YAML: flags, [warmup] and [refine] tables, [[datasets]], and [[blocks]] of refine settings that "
        "follow one another",
    )  # fmt: skip
    parser.add_argument(
        "--data", metavar="PATH", action="append", help="BEIR or TREC folder, JSON lines, irds:ID, stdlib; repeatable"
    )
    parser.add_argument("--split", metavar="NAME", help="which judgments (default: train, or the only ones)")
    parser.add_argument("--out", metavar="DIR", help="folder of all steps (default: runs/train)")
    parser.add_argument("--model", metavar="NAME", help="base (default: smollm2-135m)")
    parser.add_argument(
        "--test", metavar="PATH[:SPLIT]", action="append",
        help="evaluation set, with the instruction of the data in its folder; repeatable (default: queries held out of "
        "the data)",
    )  # fmt: skip
    parser.add_argument("--test-share", type=float, metavar="X", help="share of the queries held out (default: 0.2)")
    parser.add_argument(
        "--test-top-k", type=positive, metavar="N", help="candidates reranked in the test (default: 50)"
    )
    parser.add_argument(
        "--test-queries", type=positive, metavar="N", help="at most so many test queries (default: 200)"
    )
    parser.add_argument(
        "--test-stages", nargs="+", choices=_STAGES, metavar="STAGE",
        help=f"models in the test, refined among them: {', '.join(_STAGES)} (default: all; each takes as long again)",
    )  # fmt: skip
    parser.add_argument("--first-stage", metavar="SPEC", help="bm25, dense, fused, given, a run file (default: bm25)")
    add_own_documents(parser)
    parser.add_argument("--teacher", metavar="SPEC", help="whose scores kl and margin_mse learn from")
    parser.add_argument("--instruction", metavar="TEXT", help="what relevance means in this data")
    parser.add_argument("--template", metavar="NAME", help="template preset or JSON file (default: from the base)")
    parser.add_argument("--max-length", type=positive, metavar="N", help="tokens of a prompt in use (default: 512)")
    parser.add_argument("--eval-top-k", type=positive, metavar="N", help="candidates on the way (default: 20)")
    parser.add_argument("--device", help="cpu or cuda (default: the best there is)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all cores)")
    add_config_arguments(parser, WarmupConfig, "warmup")
    add_config_arguments(parser, RefineConfig, "refine")


def run(args: argparse.Namespace) -> int:
    """Check what can be checked, then step by step."""
    file = read_config(args.config) if args.config else {}
    options = run_options(args, file, _RUN_KEYS, _TABLES, other_tables=False)
    out = Path(options["out"] or "runs/train")
    warm_config = build_config(WarmupConfig, "warmup", file, overrides(args, "warmup"))
    blocks = _blocks(file, overrides(args, "refine"))
    share = float(options["test_share"] or 0.2)
    if not 0 < share < 1:
        raise ValueError(f"--test-share: expected a share between 0 and 1, got {share}")
    tested = _tested_stages(options["test_stages"])

    from prorank.cli import refine, warmup
    from prorank.pipeline.splits import remined, shortened, split_off

    common = {name: options[name] for name in ("split", "first_stage", "teacher", "instruction", "own_documents")}
    specs = read_specs(args.data, file, common)
    training_ready(options, out, "ir_measures")
    datasets_there(specs)
    tests = load_tests(options["test"] or [], specs, options["instruction"], options["own_documents"])
    depth = max(block.config.depth for block in blocks)
    need = any(block.config.hard_negatives > 0 for block in blocks)
    others = [test.collection for test in tests]
    prepared = [load_dataset(spec, depth, others, need_candidates=need) for spec in specs]
    if not tests:
        prepared, own = split_off(prepared, share)
        tests = [EvaluationSet(test, spec.instruction) for test, spec in zip(own, specs, strict=True)]
    at_most = int(options["test_queries"] or 200)
    tests = [test._replace(collection=shortened(test.collection, at_most)) for test in tests]
    lists = [_test_lists(test.collection, options, specs[0].first_stage) for test in tests]

    shared = {name: options[name] for name in ("template", "max_length", "device", "threads", "eval_top_k")}
    warm_data = next((one.collection for one in prepared if one.collection.qrels), None)
    if warm_data is None:
        raise ValueError("--data: warmup needs a collection with judgments")
    warm_config = _with_threshold(warm_config, warm_data)
    model = _step(
        out / "warmup", "warmup", warm_config,
        lambda folder: warmup.train(
            warm_data,
            {**shared, "model": options["model"], "out": folder, "first_stage": options["first_stage"],
             "own_documents": options["own_documents"], "analysis_pairs": 0, "records": None},
            warm_config,
        ),
    )  # fmt: skip
    warmed = model
    for number, block in enumerate(blocks, 1):
        folder = out / f"refine-{number}-{block.name}" if len(blocks) > 1 else out / "refine"
        data = prepared
        if block.remine and not (folder / "records.jsonl").is_file():
            mined = out / f"mined-{number}"
            data = [remined(one, str(model), block.remine, block.config, options, mined) for one in prepared]
        model = _step(
            folder, "refine", block.config,
            lambda where, config=block.config, model=model, data=data: refine.train(
                data, {**shared, "model": str(model), "out": where, "records": None}, config
            ),
            block.checkpoint,
        )  # fmt: skip
    stages = {"base": options["model"] or "smollm2-135m", "warmed-up": str(warmed), "refined": str(model)}
    in_test = {name: stages[name] for name in tested}
    results = [_evaluate(*each, in_test, options, out) for each in zip(tests, lists, strict=True)]
    _report(results, [test.instruction for test in tests], out, stages)
    return 0


def _tested_stages(names: Any) -> tuple[str, ...]:
    """The models that the test compares, in the order of training.

    Raises:
        ValueError: a name is none of them, or ``refined``, which the report is about, is missing.
    """
    if names is None:
        return _STAGES
    if not isinstance(names, list) or not set(names) <= set(_STAGES) or "refined" not in names:
        raise ValueError(
            f"--test-stages: expected refined, and of {', '.join(_STAGES[:-1])} what you like; got {names!r}"
        )
    return tuple(name for name in _STAGES if name in names)


class Block(NamedTuple):
    """One of the refine blocks that follow one another."""

    name: str
    config: RefineConfig
    remine: int = 0
    """Queries whose candidates the model scores before the block."""
    checkpoint: str = "best"
    """What is gone on from: ``best`` by held-out queries, or ``last``."""


def _blocks(file: Mapping[str, Any], flags: Mapping[str, str]) -> list[Block]:
    """Every refine block: its settings are ``[refine]``'s, then its own, then the flags'.

    Raises:
        ValueError: a setting is unknown or out of range.
    """
    common = file.get("refine", {})
    if "blocks" not in file:
        return [Block("all", build_config(RefineConfig, "refine", file, flags))]
    blocks = []
    for number, table in enumerate(file["blocks"], 1):
        own = {key: value for key, value in table.items() if key not in BLOCK_KEYS}
        remine, checkpoint = table.get("remine", 0), table.get("checkpoint", "best")
        if not isinstance(remine, int) or isinstance(remine, bool) or remine < 0:
            raise ValueError(f"[[blocks]] number {number}: remine: expected a number of queries, got {remine!r}")
        if checkpoint not in ("best", "last"):
            raise ValueError(f"[[blocks]] number {number}: checkpoint: expected best or last, got {checkpoint!r}")
        settings = build_config(RefineConfig, "refine", {"refine": {**common, **own}}, flags)
        blocks.append(Block(str(table.get("name", number)), settings, remine, checkpoint))
    return blocks


def _step(folder: Path, section: str, config: Any, train: Any, checkpoint: str = "best") -> Path:
    """Run a step, or say that it has ended; its ``best`` or ``last`` checkpoint.

    Raises:
        ValueError: it has ended with other settings.
    """
    if (folder / "records.jsonl").is_file():
        saved = json.loads((folder / "config.json").read_text("utf-8"))
        if different := first_difference(config, saved.get(section, {})):
            name, was, value = different
            raise ValueError(
                f"--{section}.{name}: {folder} has ended with {was!r}, not {value!r}; give another --out, or remove "
                "that folder"
            )
        print(f"{folder}: done before", file=sys.stderr)
    else:
        print(f"{folder}: {section}", file=sys.stderr)
        train(str(folder))
    return folder / ("best" if checkpoint == "best" and (folder / "best").is_dir() else "last")


def _with_threshold(config: WarmupConfig, collection: Collection) -> WarmupConfig:
    graded = any(r not in (0, 1) for judged in collection.qrels.values() for r in judged.values())
    if config.relevance_threshold is None and graded:
        print(f"{collection.name} is graded: warmup takes 1 and above as relevant", file=sys.stderr)
        return replace(config, relevance_threshold=1)
    return config


class Ranked(NamedTuple):
    """What a test set's models put in order; made before training, so that nothing is missing after it."""

    first_stage: str
    top_k: int
    candidates: Run


def _test_lists(test: Collection, options: Mapping[str, Any], stage_name: str | None) -> Ranked:
    spec = stage_name or ("given" if test.candidates is not None else "bm25")
    top_k = int(options["test_top_k"] or 50)
    return Ranked(spec, top_k, lists_of(test, spec, top_k))


def _evaluate(
    tested: EvaluationSet, lists: Ranked, stages: Mapping[str, str], options: Mapping[str, Any], out: Path
) -> Evaluation:
    """The first stage and the given stages of training on one test set."""
    from prorank.cli.evaluate import progress
    from prorank.evaluate.evaluation import Peer, evaluate
    from prorank.evaluate.results import Options
    from prorank.evaluate.systems import RerankerSystem
    from prorank.reranker import Reranker

    def load(label: str, model: str) -> RerankerSystem:
        reranker = Reranker.from_pretrained(
            model, device=options["device"], max_length=options["max_length"], threads=options["threads"]
        )
        return RerankerSystem(reranker, name=label, instruction=tested.instruction)

    test = tested.collection
    peers = [Peer(lambda label=label, model=model: load(label, model)) for label, model in stages.items()]
    folder = out / f"test-{test.name}-{test.split}" if test.split else out / f"test-{test.name}"
    with progress() as on_system:
        return evaluate(
            test, lists.candidates, peers, folder, first_stage=lists.first_stage, top_k=lists.top_k,
            options=Options(against="base" if "base" in stages else None), on_system=on_system,
        )  # fmt: skip


def _report(
    results: Sequence[Evaluation], instructions: Sequence[str | None], out: Path, stages: Mapping[str, str]
) -> None:
    """The table and the plain sentence, for people and in ``report.md``.

    Args:
        instructions: that each evaluation was made with.
    """
    from prorank.files import write_atomic

    lines = ["# Training report", ""]
    for result, instruction in zip(results, instructions, strict=True):
        measure = next(iter(result.rows[0].intervals))
        lines += [
            f"## {result.collection.name} ({len(result.collection.qrels)} test queries, top {result.top_k} of "
            f"{result.first_stage})",
            "",
            f"| system | {measure} | 95% interval | difference to {result.first_stage} | p (Holm) |",
            "|---|---|---|---|---|",
        ]
        for row in result.rows:
            interval = row.intervals[measure]
            tested = row.versus.get(result.first_stage, {}).get(measure)
            versus = f"{tested.comparison.difference.mean:+.4f} | {tested.p_holm:.4f}" if tested else " | "
            lines.append(f"| {row.name} | {interval.mean:.4f} | {interval.low:.4f} to {interval.high:.4f} | {versus} |")
        lines += ["", *([f'Instruction: "{instruction}"', ""] if instruction else []), sentence(result, measure), ""]
    lines.append(f"The reranker: `{stages['refined']}`.")
    text = "\n".join(lines) + "\n"
    write_atomic(out / "report.md", text)
    print(text)


def sentence(result: Evaluation, measure: str) -> str:
    """Whether training helped, in words, by the paired test against the first stage at the 5 % level."""
    refined = next(row for row in result.rows if row.name == "refined")
    tested = refined.versus[result.first_stage][measure]
    difference, queries = tested.comparison.difference, len(result.collection.qrels)
    size = f"{difference.mean:+.4f} {measure} (95% interval {difference.low:+.4f} to {difference.high:+.4f}, "
    size += f"p = {tested.p_holm:.4f}, {queries} queries)"
    if tested.p_holm < 0.05:
        helped = "helped" if difference.mean > 0 else "made the order worse"
        return f"Training {helped}: the refined reranker differs from {result.first_stage} by {size}."
    return (
        f"It is not shown that training helped: the refined reranker differs from {result.first_stage} by {size}; "
        "that may be chance. More queries, or longer training, may tell."
    )
