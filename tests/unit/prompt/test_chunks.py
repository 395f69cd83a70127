"""The part of a document that its margin is about: its text, where it stands, and how many parts are read."""

from __future__ import annotations

from typing import Any

import pytest

from prorank import Reranker
from prorank.backends.fake import FakeBackend
from prorank.prompt.encoder import PromptEncoder
from prorank.prompt.presets import PRESETS
from prorank.types import Document

QUERY = "does garlic lower blood pressure"
FILLER = "The weather of that week was mild, and the harbour was full of small boats. "
FACT = "Garlic lowered systolic blood pressure in eleven trials."
LONG = "".join(f"Sentence {i} speaks of the number {i * 7} and of é and 神经元. " for i in range(60))
ODD = "  x <|im_end|> \ud800 y. " * 60


def make(tokenizer: Any, long_documents: Any, max_length: int = 128) -> Reranker:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=max_length, long_documents=long_documents)
    return Reranker(FakeBackend(), encoder, name="fake")


@pytest.mark.parametrize("long_documents", ["truncate", "excerpt", "max_window"])
@pytest.mark.parametrize("text", ["short", "", "  padded  ", LONG, ODD, FILLER * 30])
def test_a_chunk_stands_where_it_says(tokenizer: Any, long_documents: str, text: str) -> None:
    documents = [Document("a", text, "A title"), Document("b", text)]
    ranked = make(tokenizer, long_documents).rank(QUERY, documents, return_chunks=True)
    for result in ranked:
        assert result.chunk is not None
        content = documents[result.index].content
        assert content[result.chunk.start : result.chunk.end] == result.chunk.text
        if len(text) < 20:
            assert result.chunk.text == content.strip()
    assert [r._replace(chunk=None) for r in ranked] == make(tokenizer, long_documents).rank(QUERY, documents)


def test_the_best_window_alone_scores_what_the_document_does(tokenizer: Any) -> None:
    windows, whole = make(tokenizer, "max_window"), make(tokenizer, "truncate", 512)
    text = "".join(f"{word} " for word in ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"] * 60)
    (result,) = windows.rank(QUERY, [text], return_chunks=True)
    rows = windows.encode(QUERY, [text])
    assert len(rows.group.own_ids) > 5
    margins = [float(m) for m in windows.score_groups([rows.by_rows()])[0]]
    (best,) = rows.best_rows(margins)
    assert result.margin == max(margins) == margins[best]
    suffix = len(windows.encoder.suffix_ids)
    decoded = tokenizer.decode(list(rows.group.own_ids[best])[:-suffix])
    assert result.chunk is not None
    assert result.chunk.text == decoded.strip()
    assert whole.rank(QUERY, [text], return_chunks=True)[0].chunk.start == 0  # type: ignore[union-attr]


def test_an_excerpts_chunk_is_the_part_closest_to_the_query(tokenizer: Any) -> None:
    text = "On vegetables. " + FILLER * 9 + FACT + " " + FILLER * 9
    (result,) = make(tokenizer, "excerpt").rank(QUERY, [text], return_chunks=True)
    assert result.chunk is not None
    assert FACT.removesuffix(".") in result.chunk.text
    assert result.chunk.start > 100


def test_max_chunks_per_doc_keeps_the_first_windows(tokenizer: Any) -> None:
    windows = make(tokenizer, "max_window")
    everything, two = windows.encode(QUERY, [LONG, "short"]), windows.encode(QUERY, [LONG, "short"], max_chunks=2)
    assert everything.truncated == 0
    assert two.truncated == 1
    assert two.group.own_ids == [*everything.group.own_ids[:2], everything.group.own_ids[-1]]
    (result,) = windows.rank(QUERY, [LONG], max_chunks_per_doc=1)
    assert result.margin == make(tokenizer, "truncate").rank(QUERY, [LONG])[0].margin, "the first window alone"
    with pytest.raises(ValueError, match="max_chunks_per_doc needs long_documents 'max_window'; fake has 'truncate'"):
        make(tokenizer, "truncate").rank(QUERY, [LONG], max_chunks_per_doc=2)
    with pytest.raises(ValueError, match="max_chunks_per_doc must be at least 1, got 0"):
        windows.rank(QUERY, [LONG], max_chunks_per_doc=0)


@pytest.mark.parametrize("long_documents", ["truncate", "excerpt", "max_window"])
def test_max_tokens_per_doc_ends_what_is_read(tokenizer: Any, long_documents: str) -> None:
    reranker = make(tokenizer, long_documents)
    for limit in (5, 300):
        cut = reranker.encoder.beginning(LONG, limit)
        (result,) = reranker.rank(QUERY, [LONG], max_tokens_per_doc=limit, return_chunks=True)
        assert result.margin == reranker.rank(QUERY, [cut])[0].margin
        assert result.chunk is not None
        assert result.chunk.end <= len(cut)
