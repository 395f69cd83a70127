"""Texts are tokenised once: what is remembered equals what the tokenizer says, and is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prorank.prompt import text as text_encoder
from prorank.prompt.text import TextEncoder

TEXT = st.text(st.characters(exclude_categories=[]), max_size=80)
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def asked(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[TextEncoder, list[str]]:
    """An encoder, and the texts that reach its tokenizer."""
    texts: list[str] = []
    encoder = TextEncoder(tokenizer, "")
    plain = encoder._plain

    def counted(new: list[str]) -> list[list[int]]:
        texts.extend(new)
        return plain(new)

    monkeypatch.setattr(encoder, "_plain", counted)
    return encoder, texts


def test_a_text_seen_before_is_not_tokenised_again(asked: tuple[TextEncoder, list[str]]) -> None:
    encoder, texts = asked
    first = encoder(["a germ", "a vaccine", "a germ"])
    assert texts == ["a germ", "a vaccine"], "equal texts of one call count once"
    assert first[0] == first[2]
    first[0].append(7)  # the caller's own list
    assert encoder(["bread", "a germ"])[1] == first[2]
    assert texts == ["a germ", "a vaccine", "bread"]


def test_memory_is_bounded(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "_REMEMBERED_BYTES", 4000)
    encoder = TextEncoder(tokenizer, "")
    ids = encoder([f"passage {i}" for i in range(200)])
    assert 0 < encoder._remembered.currsize <= 4000
    huge = encoder(["word " * 4000])[0]
    assert encoder(["word " * 4000]) == [huge], "a text larger than the store is read all the same"
    assert encoder([f"passage {i}" for i in range(200)]) == ids


@RELAXED
@given(texts=st.lists(TEXT, max_size=6))
def test_remembered_ids_are_the_tokenizers(tokenizer: Any, texts: list[str]) -> None:
    encoder = TextEncoder(tokenizer, "")
    assert encoder(texts) == encoder(texts) == [TextEncoder(tokenizer, "")([text])[0] for text in texts]
