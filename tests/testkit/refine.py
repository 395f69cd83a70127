"""Parts for the tests of stage 2: settings, a collection with candidates and a teacher, a run."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from prorank.training.refine.config import RefineConfig
from prorank.training.refine.lists import ListSource, Mixture
from prorank.training.refine.loop import refine
from prorank.types import Run
from testkit.warmup import collection, load_tiny


def refine_config(**changes: Any) -> RefineConfig:
    """Small and quick settings."""
    values: dict[str, Any] = {
        "steps": 4, "queries_per_step": 4, "list_size": 5, "hard_negatives": 2, "hard_ramp": 0.5, "hard_rank_to": 12,
        "document_tokens": 12, "query_tokens": 12, "held_out_queries": 4, "eval_every": 100, "save_every": 100,
        "precision": "float32", "learning_rate": 1e-2, "lora_rank": 4, "lora_alpha": 8.0, "held_out": 0.2,
        "relevance_threshold": 1,
    }  # fmt: skip
    return RefineConfig(**{**values, **changes})


def candidates(seed: int = 0) -> Run:
    """Twelve documents a query, with scores in a random order."""
    rng = random.Random(seed)
    toy = collection()
    return {
        q: {d: float(12 - i) for i, d in enumerate(rng.sample(sorted(toy.documents), 12))} for q in sorted(toy.queries)
    }


def source(config: RefineConfig, **options: Any) -> ListSource:
    """The toy collection as a source of lists."""
    return ListSource(collection(), config, **{"candidates": candidates(), "teacher": candidates(1), **options})


def train(folder: Path, out: Path, config: RefineConfig, **options: Any) -> Any:
    """A run of stage 2 on the tiny base in ``folder``."""
    base, encoder = load_tiny(folder)
    return refine(
        base, encoder, Mixture([source(config)], config), config, out, base_name=str(folder), device="cpu",
        progress=False, **options,
    )  # fmt: skip
