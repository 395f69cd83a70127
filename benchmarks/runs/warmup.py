"""What one GRPO step of warmup costs beside TRL's GRPOTrainer: prompts a second and peak memory, in one run.

    python -m benchmarks.runs.warmup --data msmarco-sample --append benchmarks/results/warmup.jsonl
    python -m benchmarks.runs.warmup --queries 1 --repeats 1 --sides ours trl-plain        # does it run?

Both sides take the same base in the same precision, LoRA of the same rank on the same layers, the very same prompt ids
in the same order, 8 completions of at most 2 tokens each, the same reward functions and weights, loss, clip and
learning rate. Nothing is refilled and no cost is added on our side. Each side runs in a process of its own; its first
step is not counted, the others give a median; peak memory is the highest resident set during the steps.

TRL runs with its defaults where there is no reason against: completions of the whole step are generated at once,
gradients accumulate over micro-batches of 8 sequences, bf16. ``trl`` has its default gradient checkpointing (slower,
less memory), ``trl-plain`` is without. Only tokenisation is replaced, so that it reads our ids.

A group without variance costs us nothing, and a fresh base earns almost none: so a third reward, the parity of the
token ids, makes every group vary. Completions of a fresh base hardly repeat, so this is our side's slowest case.
Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.runs.training_sides import each_side, memory, parser_of, reset_peak

SIDES = ("ours", "trl", "trl-plain")
LEARNING_RATE = 1e-6  # weights hardly move, so that every step is the same work


def main() -> int:
    args = parse()
    if args.side:
        print(json.dumps(ours(args) if args.side == "ours" else trl(args, checkpointing=args.side == "trl")))
        return 0
    rows = each_side("benchmarks.runs.warmup", args.sides)
    print(table(rows))
    finish(rows, args)
    return 0


def parse() -> argparse.Namespace:
    parser = parser_of(__doc__, SIDES, queries=2, queries_help="queries a step, each with 4 documents")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    return parser.parse_args()


def parity(completion: Any, label: float) -> float:
    """Something to tell completions of a fresh base apart by."""
    return float((sum(completion.ids) + label) % 2)


def material(args: argparse.Namespace) -> tuple[Any, Any, Any, Any, Any]:
    """(base, encoder, settings, sampler, rewards): what both sides share."""
    from prorank.data.load import load_collection
    from prorank.model.base import load_base
    from prorank.prompt.derive import resolve_template
    from prorank.prompt.encoder import PromptEncoder
    from prorank.training.warmup.config import WarmupConfig
    from prorank.training.warmup.prompts import PromptSampler
    from prorank.training.warmup.rewards import Reward, resolve_rewards

    settings = WarmupConfig(
        steps=args.repeats + 1, queries_per_step=args.queries, group_size=args.group_size, precision=args.precision,
        normalise="sum", prior="none", margin_cost=0.0, balance=False, refill_rounds=0, learning_rate=LEARNING_RATE,
        schedule="constant", warmup_steps=0, hard_start=1.0,
    )  # fmt: skip
    sampler = PromptSampler(load_collection(args.data), settings)
    base = load_base(args.model)
    encoder = PromptEncoder(base.tokenizer, resolve_template(None, base.tokenizer))
    rewards = (*resolve_rewards(settings.reward_weights()), Reward("parity", parity))
    return base, encoder, settings, sampler, rewards


def ours(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from accelerate import Accelerator

    from prorank.training.setup import build_policy, training_encoder
    from prorank.training.warmup.learner import Learner
    from prorank.training.warmup.loop import WarmupState, train_step

    base, encoder, settings, sampler, rewards = material(args)
    encode = training_encoder(encoder, base.model, settings)
    accelerator = Accelerator(cpu=True)
    policy = build_policy(base, encoder, settings, accelerator.device)
    optimiser = torch.optim.AdamW([p for _, p in policy.parameters()], lr=settings.learning_rate)
    learner = Learner(policy, settings, rewards, encoder.tokenizer.decode)
    state = WarmupState()
    seconds, values = [], []
    loaded = reset_peak()
    for _ in range(settings.steps):
        started = time.perf_counter()
        values.append(train_step(accelerator, learner, sampler, encode, optimiser, state))
        seconds.append(time.perf_counter() - started)
    if sum(v["informative"] for v in values) != settings.steps * args.queries:
        raise SystemExit("a query without variance was left out: the comparison would not be fair")
    return row(seconds, args, loaded, torch.get_num_threads(), policy)


def trl(args: argparse.Namespace, *, checkpointing: bool) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from prorank.training.setup import build_policy, training_encoder
    from prorank.training.warmup.rewards import Completion

    base, encoder, settings, sampler, rewards = material(args)
    encode = training_encoder(encoder, base.model, settings)
    prompts, labels = [], []
    for number in range(settings.steps * args.queries):
        drawn = sampler.draw(number, hard=False)
        group = encode(drawn)
        prompts += [[*group.prefix_ids, *own] for own in group.own_ids]
        labels += drawn.labels
    policy = build_policy(base, encoder, settings, torch.device("cpu"))  # the same LoRA, the same precision
    sequences = len(prompts) // settings.steps * args.group_size
    seen: list[str] = []
    ends: list[float] = []

    class OurIds(GRPOTrainer):
        def _tokenize_prompts(self, names: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            seen.extend(dict.fromkeys(names))
            return [prompts[int(name)] for name in names], None, {}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    def as_trl(reward: Any) -> Any:
        def function(completion_ids: list[list[int]], label: list[int], **_: Any) -> list[float]:
            return [
                float(reward.function(Completion(tuple(ids), encoder.label_ids, encoder.end_id, str), value))
                for ids, value in zip(completion_ids, label, strict=True)
            ]

        function.__name__ = reward.name
        return function

    with tempfile.TemporaryDirectory() as folder:
        options = GRPOConfig(
            output_dir=folder, max_steps=settings.steps, use_cpu=True, bf16=policy.autocast is not None,
            per_device_train_batch_size=args.group_size, gradient_accumulation_steps=sequences // args.group_size,
            num_generations=args.group_size, max_completion_length=settings.max_completion_tokens,
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", max_grad_norm=settings.max_grad_norm,
            loss_type=settings.loss_type, beta=0.0, reward_weights=[r.weight for r in rewards],
            gradient_checkpointing=checkpointing, shuffle_dataset=False, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = OurIds(
            model=policy.model, reward_funcs=[as_trl(reward) for reward in rewards], args=options,
            train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(prompts))], "label": labels}),
            processing_class=encoder.tokenizer, callbacks=[Clock()],
        )  # fmt: skip
        loaded = reset_peak()
        trainer.train()
    if seen != [str(i) for i in range(len(prompts))]:
        raise SystemExit(f"TRL did not see the prompts in order: {seen}")
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    return row(seconds, args, loaded, torch.get_num_threads(), policy)


def row(seconds: list[float], args: argparse.Namespace, loaded: float, threads: int, policy: Any) -> dict[str, Any]:
    counted = seconds[1:]
    middle = statistics.median(counted)
    peak = memory("VmHWM")
    return {
        "prompts_per_second": round(4 * args.queries / middle, 3),
        "step_seconds": [round(s, 3) for s in counted],
        "median_step_seconds": round(middle, 3),
        "peak_mib": round(peak),
        "peak_above_loaded_mib": round(peak - loaded),
        "trained_parameters": sum(p.numel() for _, p in policy.parameters()),
        "precision": str(policy.autocast or policy.model.dtype).removeprefix("torch."),
        "threads": threads,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A line a side; speed against TRL's sides."""
    lines = ["| side | prompts/s | seconds a step | peak MiB | MiB above the loaded model | ours is faster |"]
    lines.append("|---|---|---|---|---|---|")
    for side, found in rows.items():
        ratio = rows["ours"]["prompts_per_second"] / found["prompts_per_second"] if "ours" in rows else float("nan")
        lines.append(
            f"| {side} | {found['prompts_per_second']:.2f} | {found['median_step_seconds']:.2f} | {found['peak_mib']} "
            f"| {found['peak_above_loaded_mib']} | {'' if side == 'ours' else f'{ratio:.1f} times'} |"
        )
    return "\n".join(lines)


def finish(rows: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    from importlib.metadata import version

    from prorank.evaluate.record import append_record, make_record

    kept = ("model", "queries", "repeats", "group_size", "precision")
    payload: dict[str, Any] = {
        "benchmark": "warmup",
        "settings": {name: getattr(args, name) for name in kept} | {"data": Path(args.data).name},
        "trl": version("trl"),
        "sides": rows,
    }
    if "ours" in rows:
        speed = rows["ours"]["prompts_per_second"]
        payload["ratio"] = {s: round(speed / r["prompts_per_second"], 2) for s, r in rows.items() if s != "ours"}
    record = append_record(args.append, "benchmark", payload) if args.append else make_record("benchmark", payload)
    print(json.dumps(record))


if __name__ == "__main__":
    sys.exit(main())
