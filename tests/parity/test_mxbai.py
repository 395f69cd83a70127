"""Preset ``mxbai-rerank-v2`` against golden margins of the public ``mxbai-rerank`` package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank import Reranker

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("mxbai_golden.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def reranker(base_folder: Path) -> Reranker:
    """The same weights under the same limits: theirs count content only, ours the whole prompt."""
    return Reranker.from_pretrained(
        base_folder,
        template="mxbai-rerank-v2",
        dtype="float32",
        max_length=GOLDEN["max_length"] + GOLDEN["predefined_length"],
        query_max_length=GOLDEN["max_length"] * 3 // 4,
    )


def test_token_ids_are_the_same(reranker: Reranker) -> None:
    for row in GOLDEN["rows"]:
        group = reranker.encode(
            GOLDEN["queries"][row["query"]], [GOLDEN["documents"][row["document"]]], row["instruction"]
        ).group
        ids = [*group.prefix_ids, *group.own_ids[0]]
        assert len(ids) == row["tokens"], row
        assert sum((i + 1) * (at + 1) for at, i in enumerate(ids)) == row["ids_sum"], row


def test_margins_are_the_same(reranker: Reranker) -> None:
    wanted = np.array([row["margin"] for row in GOLDEN["rows"]])
    assert len(wanted) == 70
    assert wanted.std() > 0.1
    for instruction in (None, GOLDEN["rows"][1]["instruction"]):
        places = [i for i, row in enumerate(GOLDEN["rows"]) if row["instruction"] == instruction]
        pairs = [
            (GOLDEN["queries"][GOLDEN["rows"][i]["query"]], GOLDEN["documents"][GOLDEN["rows"][i]["document"]])
            for i in places
        ]
        np.testing.assert_allclose(reranker.score(pairs, instruction=instruction), wanted[places], atol=1e-4)
