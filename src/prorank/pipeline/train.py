"""Both stages, mining, the test and a report as one call: from data to a reranker and whether training helped.

    from prorank import TrainRun, train
    trained = train(TrainRun(data="my_folder", out="runs/mine"))
    print(trained.report)

A fifth of the queries is kept for the test, chosen by the hash of their ids, and never trained on. Every step is
skipped where it has ended, and resumed where it was interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from prorank.config import first_difference
from prorank.data.collection import Collection
from prorank.files import write_atomic
from prorank.model.options import LoadOptions
from prorank.pipeline.candidates import lists_of
from prorank.pipeline.datasets import EvaluationSet, Prepared, datasets_there, load_dataset, load_tests
from prorank.pipeline.refine import RefineRun, refine_on
from prorank.pipeline.runs import MixtureRun, training_ready
from prorank.pipeline.splits import remined, shortened, split_off
from prorank.pipeline.warmup import WarmupRun, warmup_on
from prorank.progress import system_progress
from prorank.training.config import TrainingConfig
from prorank.training.processes import is_first
from prorank.training.refine.config import RefineConfig
from prorank.training.warmup.config import WarmupConfig
from prorank.types import Run

if TYPE_CHECKING:
    from prorank.evaluate.results import Evaluation
    from prorank.evaluate.systems import RerankerSystem

__all__ = ["BLOCK_KEYS", "STAGES", "Block", "TrainRun", "Trained", "train"]

Stage = Literal["base", "warmed-up", "refined"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""What a test can compare, in the order of training."""


@dataclass(frozen=True)
class Block:
    """One of the refine blocks that follow one another."""

    name: str
    refine: RefineConfig = field(default_factory=RefineConfig)
    """Its settings."""
    remine: int = 0
    """Queries whose candidates the model scores before the block."""
    checkpoint: Literal["best", "last"] = "best"
    """What the next block goes on from: ``best`` by held-out queries, or ``last``."""

    def __post_init__(self) -> None:
        if not isinstance(self.remine, int) or isinstance(self.remine, bool) or self.remine < 0:
            raise ValueError(f"remine: expected a number of queries, got {self.remine!r}")
        if self.checkpoint not in ("best", "last"):
            raise ValueError(f"checkpoint: expected best or last, got {self.checkpoint!r}")


BLOCK_KEYS = tuple(one.name for one in fields(Block) if one.name != "refine")
"""What a ``[[blocks]]`` table of a recipe may hold besides refine settings."""


@dataclass(frozen=True, kw_only=True)
class TrainRun(MixtureRun):
    """What training needs from end to end; only ``data`` has no default."""

    out: str | os.PathLike[str] = "runs/train"
    """Folder of all steps."""
    test: tuple[str, ...] = ()
    """Evaluation set, with the instruction of the data in its folder; repeatable (default: queries held out of the
    data)."""
    test_share: float = 0.2
    """Share of the queries held out."""
    test_top_k: int = 50
    """Candidates reranked in the test."""
    test_queries: int = 200
    """At most so many test queries."""
    test_stages: tuple[Stage, ...] = STAGES
    """Models in the test, refined among them: base, warmed-up, refined (default: all; each takes as long again)."""
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    """Settings of stage 1."""
    refine: RefineConfig = field(default_factory=RefineConfig)
    """Settings of stage 2, where there are no blocks."""
    blocks: tuple[Block, ...] = ()
    """Stage 2 in several blocks, one after the other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("test_top_k", "test_queries")
        self._lists("test", "test_stages", "blocks")
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share: expected a share between 0 and 1, got {self.test_share}")
        if not set(self.test_stages) <= set(STAGES) or "refined" not in self.test_stages:
            raise ValueError(
                f"test_stages: expected refined, and of {', '.join(STAGES[:-1])} what you like; got "
                f"{' '.join(self.test_stages) or 'none'}"
            )


@dataclass(frozen=True)
class Trained:
    """What training leaves."""

    model: Path
    """Checkpoint of the refined reranker, for `Reranker.from_pretrained`."""
    warmed_up: Path
    """Checkpoint of stage 1."""
    evaluations: Sequence[Evaluation]
    """Of the first stage and the tested stages, one for each test set."""
    report: str
    """Tables, and in plain words whether training helped; also in ``report.md``. Empty, as ``evaluations``, in all but
    the first of several processes."""


def train(run: TrainRun) -> Trained:
    """Warm up, refine, test, report.

    Of several processes (``accelerate launch``) all train, and the first one alone tests and reports.

    Raises:
        ValueError: bad input, found before any training; the message opens with the field.
        KeyboardInterrupt: after Ctrl-C, once the state is saved; the same call goes on from there.
    """
    out = Path(run.out)
    blocks = run.blocks or (Block("all", run.refine),)
    training_ready(run, "ir_measures")
    datasets_there(run.specs)
    prepared, tests = _prepared(run, blocks)
    lists = [_lists(test.collection, run) for test in tests if is_first()]
    warmed_up = _warmed_up(run, prepared, out / "warmup")
    model = warmed_up
    for number, block in enumerate(blocks, 1):
        folder = out / f"refine-{number}-{block.name}" if len(blocks) > 1 else out / "refine"
        own = "" if is_first() else f"-{os.environ['RANK']}"  # each process mines for itself
        model = _refined(run, block, prepared, model, folder, mined=out / f"mined-{number}{own}")
    if not is_first():
        return Trained(model, warmed_up, [], "")
    evaluations = [_evaluate(*one, run, warmed_up, model) for one in zip(tests, lists, strict=True)]

    from prorank.pipeline.reports import training_report

    report = training_report(evaluations, [test.instruction for test in tests], model)
    write_atomic(out / "report.md", report)
    return Trained(model, warmed_up, evaluations, report)


def _prepared(run: TrainRun, blocks: Sequence[Block]) -> tuple[list[Prepared], list[EvaluationSet]]:
    """The collections to train on, and those to test on, which share nothing."""
    specs = run.specs
    tests = load_tests(run.test, specs, run.instruction, run.own_documents)
    depth = max(block.refine.depth for block in blocks)
    need, others = any(block.refine.hard_negatives > 0 for block in blocks), [test.collection for test in tests]
    prepared = [load_dataset(spec, depth, others, need_candidates=need) for spec in specs]
    if not tests:
        prepared, own = split_off(prepared, run.test_share)
        tests = [EvaluationSet(test, spec.instruction) for test, spec in zip(own, specs, strict=True)]
    return prepared, [one._replace(collection=shortened(one.collection, run.test_queries)) for one in tests]


def _warmed_up(run: TrainRun, prepared: Sequence[Prepared], folder: Path) -> Path:
    """Stage 1, on the first collection with judgments; its checkpoint."""
    judged = next((one for one in prepared if one.collection.qrels), None)
    if judged is None:
        raise ValueError("data: warmup needs a collection with judgments")
    collection = judged.collection
    config = _with_threshold(run.warmup, collection)
    step = WarmupRun(
        data=judged.spec.path, out=str(folder), model=run.model, first_stage=run.first_stage, template=run.template,
        max_length=run.max_length, device=run.device, threads=run.threads, analysis_pairs=0, warmup=config,
    )  # fmt: skip
    return _step(folder, "warmup", config, lambda: warmup_on(collection, step))


def _refined(run: TrainRun, block: Block, prepared: Sequence[Prepared], model: Path, folder: Path, mined: Path) -> Path:
    """One block of stage 2; its checkpoint."""
    if block.remine and not (folder / "records.jsonl").is_file():
        options = LoadOptions(model, device=run.device, threads=run.threads)
        prepared = [remined(one, options, block.remine, block.refine, mined) for one in prepared]
    step = RefineRun(
        data=run.data, out=str(folder), model=str(model), template=run.template, max_length=run.max_length,
        device=run.device, threads=run.threads, eval_top_k=run.eval_top_k, refine=block.refine,
    )  # fmt: skip
    return _step(folder, "refine", block.refine, lambda: refine_on(prepared, step), block.checkpoint)


def _step(
    folder: Path, section: str, config: TrainingConfig, work: Callable[[], object], checkpoint: str = "best"
) -> Path:
    """Do a step, or say that it has ended; its ``best`` or ``last`` checkpoint.

    Raises:
        ValueError: it has ended with other settings.
    """
    if (folder / "records.jsonl").is_file():
        saved: Mapping[str, Mapping[str, object]] = json.loads((folder / "config.json").read_text("utf-8"))
        if different := first_difference(config, saved.get(section, {})):
            name, was, value = different
            raise ValueError(
                f"{section}.{name}: {folder} has ended with {was!r}, not {value!r}; choose another folder for the run "
                "(--out), or remove that one"
            )
        _say(f"{folder}: done before")
    else:
        _say(f"{folder}: {section}")
        work()
    return folder / ("best" if checkpoint == "best" and (folder / "best").is_dir() else "last")


def _say(text: str) -> None:
    if is_first():
        print(text, file=sys.stderr)


def _with_threshold(config: WarmupConfig, collection: Collection) -> WarmupConfig:
    graded = any(r not in (0, 1) for judged in collection.qrels.values() for r in judged.values())
    if config.relevance_threshold is None and graded:
        _say(f"{collection.name} is graded: warmup takes 1 and above as relevant")
        return replace(config, relevance_threshold=1)
    return config


class Lists(NamedTuple):
    """What a test set's models put in order; made before training, so that nothing is missing after it."""

    first_stage: str
    candidates: Run


def _lists(test: Collection, run: TrainRun) -> Lists:
    spec = run.specs[0].first_stage or ("given" if test.candidates is not None else "bm25")
    return Lists(spec, lists_of(test, spec, run.test_top_k))


def _evaluate(tested: EvaluationSet, lists: Lists, run: TrainRun, warmed_up: Path, refined: Path) -> Evaluation:
    """The first stage and the run's stages of training on one test set."""
    from prorank.evaluate.evaluation import Peer, evaluate
    from prorank.evaluate.results import Options
    from prorank.evaluate.systems import RerankerSystem
    from prorank.reranker import Reranker

    common = LoadOptions(device=run.device, max_length=run.max_length, threads=run.threads)
    options = {
        "base": replace(common, model=run.model, template=run.template),  # the checkpoints carry their own
        "warmed-up": replace(common, model=warmed_up),
        "refined": replace(common, model=refined),
    }

    def load(stage: Stage) -> RerankerSystem:
        return RerankerSystem(Reranker.load(options[stage]), name=stage, instruction=tested.instruction)

    test = tested.collection
    stages = [stage for stage in STAGES if stage in run.test_stages]
    peers = [Peer(partial(load, stage)) for stage in stages]
    folder = Path(run.out) / "-".join(filter(None, ("test", test.name, test.split)))
    with system_progress() as on_system:
        return evaluate(
            test, lists.candidates, peers, folder, first_stage=lists.first_stage, top_k=run.test_top_k,
            options=Options(against="base" if "base" in stages else None), on_system=on_system,
        )  # fmt: skip
