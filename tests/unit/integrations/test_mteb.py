"""mteb: a task of local data, run by mteb's own evaluation; its figure is ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prorank import Reranker
from prorank.evaluate.metrics import measure, ranked

mteb = pytest.importorskip("mteb", reason="mteb is part of the group 'ecosystem-heavy'")

from prorank.integrations.mteb import ProRankModel, model_meta  # noqa: E402

DOCUMENTS = {f"d{i}": f"text number {i} about {word}" for i, word in enumerate(["bread", "cells", "rain", "towns"] * 3)}
QUERIES = {"q1": "what is bread", "q2": "where does it rain", "q3": "towns"}
CANDIDATES = {q: list(DOCUMENTS)[i : i + 8] for i, q in enumerate(QUERIES)}
QRELS = {"q1": {"d0": 1, "d4": 2}, "q2": {"d2": 1, "d6": 1}, "q3": {"d3": 1}}
INSTRUCTIONS = {"q1": "About food.", "q2": "About weather.", "q3": "About food."}


def task(instructions: bool) -> Any:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class LocalReranking(AbsTaskRetrieval):
        metadata = TaskMetadata(
            dataset={"path": "local", "revision": "1"}, name="LocalReranking", description="A few texts.",
            type="InstructionReranking" if instructions else "Reranking", category="t2t", eval_splits=["test"],
            eval_langs=["eng-Latn"], main_score="ndcg_at_10",
        )  # fmt: skip

        def load_data(self, **_: Any) -> None:
            queries = [
                {"id": q, "text": text, **({"instruction": INSTRUCTIONS[q]} if instructions else {})}
                for q, text in QUERIES.items()
            ]
            corpus = [{"id": d, "text": text, "title": ""} for d, text in DOCUMENTS.items()]
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries),
                        "relevant_docs": QRELS, "top_ranked": CANDIDATES,
                    }
                }
            }  # fmt: skip
            self.data_loaded = True

    return LocalReranking()


@pytest.mark.parametrize("instructions", [False, True])
def test_mtebs_evaluation_gives_our_figure(reranker: Reranker, instructions: bool) -> None:
    result = mteb.evaluate(ProRankModel(reranker=reranker), task(instructions), cache=None, co2_tracker=False)
    run = {}
    for query_id, listed in CANDIDATES.items():
        told = INSTRUCTIONS[query_id] if instructions else None
        margins = reranker.margins(QUERIES[query_id], [DOCUMENTS[d] for d in listed], instruction=told)
        run[query_id] = ranked(listed, margins)
    assert result.task_results[0].get_score() == pytest.approx(measure(run, QRELS).mean("nDCG@10"), abs=1e-5)
    assert result.model_name == "prorank/fake"


def test_the_metadata_say_what_the_model_is(tiny_llama_dir: Path, reranker: Reranker) -> None:
    from mteb.models.models_protocols import CrossEncoderProtocol

    tiny = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=96)
    meta = model_meta(tiny)
    assert (meta.name, meta.revision, meta.max_tokens) == (f"prorank/{tiny.name}", tiny.fingerprint[:40], 96)
    assert meta.is_cross_encoder
    assert meta.framework == ["PyTorch"]
    assert meta.to_dict()["loader"] == "ProRankModel"
    assert isinstance(ProRankModel(reranker=reranker), CrossEncoderProtocol)
