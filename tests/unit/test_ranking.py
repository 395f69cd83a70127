"""What a reranker answers: thresholds, what they leave out, and the same numbers from the client and the server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prorank import Reranker
from prorank.ranking import Thresholds

TEXTS = [f"document {i}" for i in range(20)]


def test_thresholds_leave_out_and_count(fake_reranker: Reranker) -> None:
    everything = fake_reranker.rank("q", TEXTS)
    assert everything.left_out == 0
    seventh = everything[6]
    for options in ({"min_margin": seventh.margin}, {"min_score": seventh.probability}):
        kept = fake_reranker.rank("q", TEXTS, **options)
        assert kept == everything[:7], "the threshold itself is kept"
        assert kept.left_out == 13
        few = fake_reranker.rank("q", TEXTS, top_k=3, **options)
        assert (few, few.left_out) == (everything[:3], 13), "what top_k cuts off is not left out"
    both = fake_reranker.rank("q", TEXTS, min_margin=seventh.margin, min_score=everything[1].probability)
    assert (both, both.left_out) == (everything[:2], 18)
    nothing = fake_reranker.rank("q", TEXTS, min_margin=np.float32(1e6))
    assert (nothing, nothing.left_out) == ([], 20)
    assert fake_reranker.rank("q", [], min_score=0.5).left_out == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 1.5}, "min_score must be a probability from 0 to 1, got 1.5"),
        ({"min_score": -0.1}, "min_score must be"),
        ({"min_score": float("nan")}, "min_score must be"),
        ({"min_score": "0.5"}, "min_score must be"),
        ({"min_score": True}, "min_score must be"),
        ({"min_margin": float("inf")}, "min_margin must be a finite number, got inf"),
        ({"min_margin": "3"}, "min_margin must be"),
    ],
)
def test_thresholds_that_are_none_are_named(fake_reranker: Reranker, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fake_reranker.rank("q", ["a"], **options)
    with pytest.raises(ValueError, match=message):
        Thresholds.checked(**options)
