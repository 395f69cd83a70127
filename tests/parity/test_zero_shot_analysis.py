"""The paper's preliminary finding holds for the built-in base: without training it does not answer in form."""

from __future__ import annotations

import pytest

from prorank.evaluate.analyze import analyze, draw_sample

pytest.importorskip("bm25s")


def test_zero_shot_base_does_not_follow_the_format(base_model, shared_data):
    """On a few short prompts of NFCorpus; the committed record (benchmarks/results/analyze.jsonl) has 200."""
    from prorank.data import first_stage, load_collection
    from prorank.prompt.encoder import PromptEncoder
    from prorank.reranker import Reranker

    encoder = base_model.encoder
    short = Reranker(base_model.backend, PromptEncoder(encoder.tokenizer, encoder.template, max_length=160))

    collection = load_collection(shared_data / "nfcorpus", "test")
    sample = draw_sample(collection, first_stage("bm25", collection, 20), pairs=4, queries=1, top_k=2)
    found = analyze(short, collection, sample)
    assert found.understanding["format_success"][0] == 0.0
    assert found.understanding["accuracy"][0] == 0.0
    assert sum(count for _, count in found.malformed) == 4
