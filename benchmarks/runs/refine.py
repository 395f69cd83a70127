"""What a step of refine costs beside sentence-transformers' CrossEncoderTrainer: documents a second and peak memory.

    python -m benchmarks.runs.refine --append benchmarks/results/refine.jsonl
    python -m benchmarks.runs.refine --repeats 1 --queries 1 --sides ours cross-encoder        # does it run?

All sides take the same base in the same precision (16-bit weights, float32 adapters, autocast), LoRA of the same rank
on the same layers, the same lists in one order or another (one positive, random rivals; documents cut beforehand, so
that nobody cuts), ListNet's loss, AdamW with the same rate, and one update a step. ``ours`` is refine as it is;
``ours-plain`` computes every prompt whole (no shared prefix). ``cross-encoder`` reads the folder that we save for it,
in our prompt, a list in one forward pass (its default is a document at a time, which is slower). Every side is a
process of its own; its first step is not counted, the others give a median; memory is the highest resident set during
the steps.
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

SIDES = ("ours", "ours-plain", "cross-encoder")
LEARNING_RATE = 1e-6  # weights hardly move, so that every step is the same work
WANTED = 1.5


def main() -> int:
    args = parse()
    if args.side:
        print(json.dumps(cross_encoder(args) if args.side == "cross-encoder" else ours(args)))
        return 0
    rows = each_side("benchmarks.runs.refine", args.sides)
    return finish(rows, args)


def parse() -> argparse.Namespace:
    parser = parser_of(__doc__, SIDES, queries=4, queries_help="lists a step")
    parser.add_argument("--list-size", type=int, default=8, help="documents of a list (default: %(default)s)")
    parser.add_argument("--document-tokens", type=int, default=96, help="(default: %(default)s)")
    return parser.parse_args()


def material(args: argparse.Namespace, *, share_prefix: bool = True) -> tuple[Any, Any, Any, list[Any]]:
    """(base, encoder, settings, lists of all steps): what the sides share."""
    from prorank.data.load import load_collection
    from prorank.model.base import load_base
    from prorank.prompt.derive import resolve_template
    from prorank.prompt.encoder import PromptEncoder
    from prorank.training.refine.config import RefineConfig
    from prorank.training.refine.lists import ListSource, Mixture

    settings = RefineConfig(
        steps=args.repeats + 1, queries_per_step=args.queries, list_size=args.list_size, hard_negatives=0,
        losses=("listnet=1",), learning_rate=LEARNING_RATE, schedule="constant", warmup_steps=0,
        document_tokens=args.document_tokens + 16, query_tokens=64, share_prefix=share_prefix,
    )  # fmt: skip
    base = load_base(args.model)
    encoder = PromptEncoder(base.tokenizer, resolve_template(None, base.tokenizer))
    mixture = Mixture([ListSource(load_collection(args.data), settings)], settings)

    def cut(text: str) -> str:
        ids = base.tokenizer.encode(text, add_special_tokens=False)[: args.document_tokens]
        return str(base.tokenizer.decode(ids))

    drawn = (mixture.draw(i, 0) for i in range(settings.steps * args.queries))
    return base, encoder, settings, [x._replace(documents=tuple(map(cut, x.documents))) for x in drawn]


def ours(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from accelerate import Accelerator

    from prorank.training.optimise import apply_gradients, build_optimiser
    from prorank.training.refine.learner import ListLearner
    from prorank.training.setup import build_policy, training_encoder

    base, encoder, settings, lists = material(args, share_prefix=args.side == "ours")
    encode = training_encoder(encoder, base.model, settings, section="refine")
    accelerator = Accelerator(cpu=True)
    policy = build_policy(base, encoder, settings, accelerator.device)
    optimiser = build_optimiser(policy, settings)
    learner = ListLearner(policy, settings)
    policy.model.train()
    loaded = reset_peak()
    seconds, losses = [], []
    for step in range(settings.steps):
        started = time.perf_counter()
        items = lists[step * args.queries : (step + 1) * args.queries]
        seen = [learner.learn(item, encode(item)) for item in items]
        _, loss = apply_gradients(
            accelerator, policy, optimiser, LEARNING_RATE, float(len(seen)), sum(s.loss for s in seen), 1.0
        )
        seconds.append(time.perf_counter() - started)
        losses.append(loss)
    return row(seconds, losses, args, loaded, torch.get_num_threads(), sum(p.numel() for _, p in policy.parameters()))


def cross_encoder(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import ListNetLoss
    from transformers import TrainerCallback

    from prorank import Reranker
    from prorank.backends.devices import pick_dtype

    _, _, settings, lists = material(args)
    dtype = pick_dtype(settings.precision, torch.device("cpu"))
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        saved = Reranker.from_pretrained(args.model, dtype="float32").save(Path(folder) / "base")
        model = CrossEncoder(str(saved), device="cpu", model_kwargs={"dtype": dtype})
        lora = LoraConfig(
            r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model.add_adapter(lora)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        options = CrossEncoderTrainingArguments(
            output_dir=str(Path(folder) / "run"), max_steps=settings.steps, use_cpu=True, bf16=dtype == torch.bfloat16,
            per_device_train_batch_size=1, gradient_accumulation_steps=args.queries, learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant", max_grad_norm=1.0, report_to=[], save_strategy="no", disable_tqdm=True,
            logging_strategy="steps", logging_steps=1, batch_sampler="batch_sampler",
        )  # fmt: skip
        data = Dataset.from_dict(
            {
                "query": [x.query for x in lists],
                "documents": [list(x.documents) for x in lists],
                "label": [list(x.relevance) for x in lists],
            }
        )
        trainer = CrossEncoderTrainer(
            model=model, args=options, train_dataset=data, callbacks=[Clock()],
            loss=ListNetLoss(model, mini_batch_size=args.list_size),
        )  # fmt: skip
        loaded = reset_peak()
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    return row(seconds, losses, args, loaded, torch.get_num_threads(), trained)


def row(
    seconds: list[float], losses: list[float], args: argparse.Namespace, loaded: float, threads: int, trained: int
) -> dict[str, Any]:
    counted = seconds[1:]
    peak = memory("VmHWM")
    return {
        "documents_per_second": round(args.queries * args.list_size / statistics.median(counted), 3),
        "step_seconds": [round(s, 3) for s in counted],
        "losses": [round(loss, 4) for loss in losses],
        "peak_mib": round(peak),
        "peak_above_loaded_mib": round(peak - loaded),
        "trained_parameters": trained,
        "threads": threads,
    }


def finish(rows: dict[str, dict[str, Any]], args: argparse.Namespace) -> int:
    from importlib.metadata import version

    from prorank.evaluate.record import append_record, make_record

    payload: dict[str, Any] = {
        "benchmark": "refine",
        "settings": {name: getattr(args, name) for name in ("model", "queries", "list_size", "document_tokens")}
        | {"data": Path(args.data).name, "repeats": args.repeats},
        "sentence-transformers": version("sentence-transformers"),
        "sides": rows,
    }
    print(f"{'side':<16}{'docs/s':>8}{'s a step':>10}{'peak MiB':>10}{'ours is faster':>16}   losses")
    for side, found in rows.items():
        ratio = rows["ours"]["documents_per_second"] / found["documents_per_second"] if "ours" in rows else 0.0
        shown = "" if side == "ours" else f"{ratio:.2f} times"
        print(
            f"{side:<16}{found['documents_per_second']:>8.2f}{statistics.median(found['step_seconds']):>10.2f}"
            f"{found['peak_mib']:>10}{shown:>16}   {found['losses']}"
        )
        payload.setdefault("ratio", {})[side] = round(ratio, 2)
    good = payload["ratio"].get("cross-encoder", WANTED) >= WANTED
    print(f"{'ok  ' if good else 'FAIL'}  {WANTED} times CrossEncoderTrainer's documents a second")
    record = append_record(args.append, "benchmark", payload) if args.append else make_record("benchmark", payload)
    print(json.dumps(record))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
