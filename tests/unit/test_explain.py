"""Explanations: each weight is a difference of two margins that anyone can ask for; bounded, and off by default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prorank import Reranker
from prorank.backends.fake import FakeBackend
from prorank.prompt.encoder import PromptEncoder
from prorank.prompt.presets import PRESETS
from prorank.prompt.sentences import MOST_SENTENCES

QUERY = "how do vaccines work"
DOCUMENTS = [
    "Bread is baked. Vaccines train cells. It rains.",
    {"id": "b", "title": "Memory", "text": "Cells remember. They answer at once!"},
    "one sentence alone",
    "",
]


def test_a_weight_is_the_margin_minus_that_without_the_sentence(fake_reranker: Reranker) -> None:
    found = fake_reranker.rank(QUERY, DOCUMENTS, explain=4)
    told = {result.index: result for result in found}
    for index, shorter in {
        0: ["Vaccines train cells. It rains.", "Bread is baked. It rains.", "Bread is baked. Vaccines train cells."],
        1: ["They answer at once!", "Memory Cells remember."],
        2: [""],
        3: [],
    }.items():
        result = told[index]
        margins = fake_reranker.margins(QUERY, shorter)
        sentences = result.sentences
        assert sentences is not None
        np.testing.assert_allclose([s.weight for s in sentences], result.margin - margins, atol=1e-6)
        assert all((result.text or "")[s.start : s.end] == s.text for s in sentences)
    assert [s.text for s in told[1].sentences or ()] == ["Memory Cells remember.", "They answer at once!"]


def test_only_the_best_are_explained_and_nothing_else_changes(fake_reranker: Reranker) -> None:
    plain = fake_reranker.rank(QUERY, DOCUMENTS)
    assert all(result.sentences is None for result in plain)
    assert "sentences" not in plain.to_dicts()[0]
    found = fake_reranker.rank(QUERY, DOCUMENTS, explain=2)
    assert [result.sentences is not None for result in found] == [True, True, False, False]
    assert [result._replace(sentences=None) for result in found] == plain
    row = found.to_dicts()[0]
    assert set(row["sentences"][0]) == {"text", "start", "end", "weight"} if row["sentences"] else True
    with pytest.raises(ValueError, match="explain must be at least 1"):
        fake_reranker.rank(QUERY, DOCUMENTS, explain=0)


def test_the_cost_is_bounded(tokenizer: Any) -> None:
    scored: list[int] = []

    class Counting(FakeBackend):
        def label_logits(self, group: Any) -> Any:
            scored.append(len(group.own_ids))
            return super().label_logits(group)

    reranker = Reranker(Counting(), PromptEncoder(tokenizer, PRESETS["prorank"], long_documents="excerpt"))
    long = ["".join(f"Sentence {i} of text {n}. " for i in range(200)) for n in range(5)]
    found = reranker.rank(QUERY, long, explain=2)
    assert sum(scored) <= 5 + 2 * MOST_SENTENCES
    sentences = found[0].sentences or ()
    assert len(sentences) == MOST_SENTENCES
    assert "".join(s.text for s in sentences).replace(" ", "") == long[found[0].index].replace(" ", "")


def test_an_iterators_best_are_explained_whichever_block_they_came_in(
    fake_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"Number {i}. Another sentence." for i in range(25)] + [""]
    wanted = fake_reranker.rank(QUERY, texts, top_k=6, explain=4)
    monkeypatch.setattr("prorank.reranker._BLOCK", 4)
    assert fake_reranker.rank(QUERY, iter(texts), top_k=6, explain=4) == wanted


def test_with_windows_and_a_bound_on_tokens(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=96, long_documents="max_window")
    reranker = Reranker(FakeBackend(), encoder)
    text = "".join(f"Sentence {i}. " for i in range(60))
    (result,) = reranker.rank(
        QUERY, [text], explain=1, max_tokens_per_doc=100, max_chunks_per_doc=2, return_chunks=True
    )
    sentences = result.sentences or ()
    assert sentences[-1].end < len(text), "what is not read weighs nothing and is not asked about"
    shorter = text[: sentences[-1].end][: sentences[0].start] + text[sentences[0].end + 1 : sentences[-1].end]
    (other,) = reranker.rank(QUERY, [shorter], max_chunks_per_doc=2)
    assert sentences[0].weight == pytest.approx(result.margin - other.margin, abs=1e-6)
