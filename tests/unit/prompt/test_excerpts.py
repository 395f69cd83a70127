"""Excerpts of long documents: the beginning, then what shares the query's words; a matter of the pair alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prorank import Reranker
from prorank.prompt.encoder import PromptEncoder
from prorank.prompt.excerpts import READ_TOKENS, Excerpter
from prorank.prompt.presets import PRESETS
from prorank.prompt.tokenizer import FastTokenizer
from testkit.refine import refine_config, train

QUERY = "does garlic lower blood pressure"
FILLER = "The weather of that week was mild, and the harbour was full of small boats. "
FACT = "Garlic lowered systolic blood pressure in eleven trials."
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def excerpt(tokenizer: Any, query: str, text: str, room: int) -> str:
    """The excerpt as text."""
    excerpter = Excerpter(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    weights = excerpter.query_weights(tokenizer.encode(" " + query, add_special_tokens=False))
    return tokenizer.decode(excerpter(ids, room, weights))


@pytest.mark.parametrize("place", [0, 7, 19])
def test_the_sentence_that_answers_is_kept_wherever_it_stands(tokenizer: Any, place: int) -> None:
    sentences = [FILLER] * 20
    sentences[place] = FACT + " "
    kept = excerpt(tokenizer, QUERY, "On vegetables. " + "".join(sentences), 60)
    assert FACT in kept
    assert kept.startswith("On vegetables.")


def test_by_hand(tokenizer: Any) -> None:
    text = (
        "Alpha one two three four five. Beta six seven eight nine ten. Gamma pressure is high in the hills. "
        "Delta one two three four five. Garlic and pressure are in this one."
    )
    sentences = [part.strip() + "." for part in text.split(".")[:-1]]
    lengths = [len(tokenizer.encode(" " + sentence)) for sentence in sentences]
    # A third of the room is the first sentence; the last one covers both words, so "Gamma" adds nothing to it and
    # counts only once all words count anew.
    assert excerpt(tokenizer, "garlic pressure", text, lengths[0] + lengths[4]) == f"{sentences[0]} {sentences[4]}"
    room = lengths[0] + lengths[2] + lengths[4]
    assert excerpt(tokenizer, "garlic pressure", text, room) == f"{sentences[0]} {sentences[2]} {sentences[4]}"
    assert excerpt(tokenizer, "unrelated", text, lengths[0] + lengths[1]) == f"{sentences[0]} {sentences[1]}"


@given(
    text=st.lists(st.sampled_from([FILLER, FACT, "Short. ", "no end " * 30, "神经元。", "é\n"]), max_size=30).map(
        "".join
    ),
    query=st.sampled_from([QUERY, "", "boats", "神经元", "the of"]),
    room=st.integers(1, 200),
)
@RELAXED
def test_an_excerpt_is_in_order_and_fills_its_room(tokenizer: Any, text: str, query: str, room: int) -> None:
    excerpter = Excerpter(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    weights = excerpter.query_weights(tokenizer.encode(" " + query, add_special_tokens=False))
    kept = excerpter(ids, room, weights)
    assert len(kept) == min(room, len(ids))
    left = iter(ids)
    assert all(token in left for token in kept)
    if not weights:
        assert kept == ids[:room]


def test_common_words_weigh_less_and_the_commonest_nothing(tokenizer: Any) -> None:
    excerpter = Excerpter(tokenizer)
    weights = excerpter.query_weights(tokenizer.encode(" the water of neutrophils", add_special_tokens=False))
    assert "the" not in weights
    assert "of" not in weights
    assert 0 < weights["water"] < max(weights.values())


def test_prompts_hold_the_excerpt_whatever_else_is_asked(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=140, long_documents="excerpt")
    texts = ["short", FILLER * 20 + FACT, FILLER * 50, FACT]
    encoded = encoder.encode(QUERY, texts)
    alone = [encoder.encode(QUERY, [text]).group.own_ids[0] for text in texts]
    assert encoded.group.own_ids == alone
    assert encoded.truncated == 2
    assert encoded.row_document == (0, 1, 2, 3)
    assert FACT in tokenizer.decode(alone[1])
    assert {len(encoded.group.prefix_ids) + len(row) for row in alone[1:3]} == {140}
    plain = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=140).encode(QUERY, texts).group.own_ids
    assert [a == b for a, b in zip(alone, plain, strict=True)] == [True, False, True, True]


def test_a_fast_tokenizer_gives_the_same(tokenizer: Any, base_folder: Path) -> None:
    text = FILLER * 20 + FACT
    assert excerpt(FastTokenizer(base_folder), QUERY, text, 60) == excerpt(tokenizer, QUERY, text, 60)


def test_of_a_megabyte_the_first_tokens_are_read(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=140, long_documents="excerpt")
    near, far = FILLER * (READ_TOKENS // 40) + FACT, FILLER * 15_000 + FACT
    assert len(far) > 1_000_000
    first, second = encoder.encode(QUERY, [near, far]).group.own_ids
    assert FACT in tokenizer.decode(first)
    assert FACT not in tokenizer.decode(second)
    assert len(first) == len(second)


def test_what_fits_is_kept_whole_however_long(tokenizer: Any) -> None:
    text = FILLER * (READ_TOKENS // 10)
    rows = [
        PromptEncoder(tokenizer, PRESETS["prorank"], max_length=12_000, long_documents=kind).encode(QUERY, [text])
        for kind in ("truncate", "excerpt")
    ]
    assert rows[0].group.own_ids == rows[1].group.own_ids
    assert len(rows[0].group.own_ids[0]) > READ_TOKENS


@given(text=st.text(st.characters(exclude_categories=[]), max_size=200))
@RELAXED
def test_outside_text_gives_no_special_token(tokenizer: Any, text: str) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=100, long_documents="excerpt")
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    row = encoder.encode(text[:50], [(text + "<|im_end|>") * 8]).group.own_ids[0]
    assert [i for i in row if i in special] == [i for i in encoder.suffix_ids if i in special]


def test_a_model_trained_on_excerpts_reads_excerpts(tiny_llama_dir: Path, tmp_path: Path) -> None:
    result = train(tiny_llama_dir, tmp_path / "run", refine_config(steps=1, long_documents="excerpt"))
    reranker = Reranker.from_pretrained(result.last, max_length=128)
    assert reranker.encoder.long_documents == "excerpt"
    row = reranker.encode(QUERY, [FILLER * 20 + FACT]).group.own_ids[0]
    assert FACT in reranker.encoder.tokenizer.decode(row)


def test_adjacent_limits_nest(tokenizer: Any) -> None:
    """More room never loses the beginning."""
    text = FILLER * 10 + FACT + FILLER * 10
    kept = [excerpt(tokenizer, QUERY, text, room) for room in range(40, 120, 8)]
    assert all(len(a) < len(b) for a, b in pairwise(kept))
    assert all(one.startswith("The weather of that week") for one in kept)
