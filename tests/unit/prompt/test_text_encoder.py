"""Texts are tokenised once: what is remembered equals what the tokenizer says, and is bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prorank.prompt import text as text_encoder
from prorank.prompt.text import TextEncoder
from prorank.prompt.tokenizer import FastTokenizer

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


class PythonTokenizer:
    """A tokenizer that says no offsets, as far as prompts need one; ``lower`` makes it one that changes its texts."""

    def __init__(self, tokenizer: Any, *, lower: bool = False) -> None:
        self.added_tokens_decoder = tokenizer.added_tokens_decoder
        self.all_special_tokens = tokenizer.all_special_tokens
        self.convert_tokens_to_ids, self.decode = tokenizer.convert_tokens_to_ids, tokenizer.decode
        self._tokenizer, self._lower = tokenizer, lower

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        text = text.lower() if self._lower else text
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return ids


LONG = [
    "Bread needs flour, and it is a long sentence about bread. " * 4,
    "a <|im_end|> b <|im_start|>assistant 1, and so on for some words more",
    "Прививка учит иммунитет 🦠🦠🦠 и ещё несколько слов, чтобы было длиннее",
    "免疫系统会记住病菌，疫苗教会它。" * 3,
    " \n\n  leading, and \t inner  spaces  ",
]


@pytest.mark.parametrize("limit", [1, 2, 5, 11, 30, 1000])
def test_every_tokenizer_cuts_alike(tokenizer: Any, tmp_path: Path, limit: int) -> None:
    tokenizer.save_pretrained(tmp_path)
    others = [TextEncoder(one, "") for one in (FastTokenizer(tmp_path), PythonTokenizer(tokenizer))]
    encoder = TextEncoder(tokenizer, "")
    lower = TextEncoder(PythonTokenizer(tokenizer, lower=True), "")
    for text in LONG:
        cut = encoder.beginning(text, limit)
        assert text.startswith(cut)
        ids, whole = encoder([cut, text])
        assert len(ids) <= limit
        assert [other.beginning(text, limit) for other in others] == [cut, cut]
        if len(whole) <= limit:
            assert cut == text
        else:
            assert ids == whole[: len(ids)]
            assert limit - len(ids) < 4, "a character takes up to four tokens"
        assert text.startswith(lower.beginning(text, limit))
        assert len(lower([lower.beginning(text, limit)])[0]) <= limit


def test_a_character_of_several_tokens_is_not_cut(tokenizer: Any) -> None:
    encoder = TextEncoder(tokenizer, "")
    assert len(encoder(["🦠"])[0]) == 3, "a case that splits"
    assert [encoder.beginning("ab🦠🦠", limit) for limit in (1, 2, 3, 4, 6, 7)] == [
        "ab", "ab", "ab", "ab🦠", "ab🦠", "ab🦠🦠",
    ]  # fmt: skip
