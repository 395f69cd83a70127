"""The default first stage gives the published BM25 values on the shared collections, to three digits."""

from __future__ import annotations

import pytest

from prorank.data import first_stage, load_collection
from prorank.evaluate.metrics import measure

pytest.importorskip("bm25s")


@pytest.mark.parametrize(
    ("name", "split", "spec", "expected"),
    [
        ("nfcorpus", "test", "bm25", 0.3177),
        ("scifact", "test", "bm25", 0.6762),
        ("cosqa", "dev", "bm25", 0.3167),
        ("dl19", "test", "given:bm25", 0.5058),
        ("dl19", "test", "given:splade", 0.7308),
    ],
)
def test_reference_values(shared_data, name, split, spec, expected):
    collection = load_collection(shared_data / name, split)
    found = measure(first_stage(spec, collection, 100), collection.qrels, ["nDCG@10"]).mean("nDCG@10")
    assert found == pytest.approx(expected, abs=5e-4)
