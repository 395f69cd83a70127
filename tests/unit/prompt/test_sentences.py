"""Sentences of a text: cut where people see their ends, complete, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prorank.prompt.sentences import sentences, without


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "stop." Then 3.14 came.', ['He said "stop."', "Then 3.14 came."]),
        ("  a line\nanother  \n\n third ", ["a line", "another", "third"]),
        ("疫苗训练免疫系统。它很安全！好。", ["疫苗训练免疫系统。", "它很安全！", "好。"]),
        ("no end", ["no end"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_ends(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in sentences(text)] == expected


def test_without_one() -> None:
    text = "One. Two! Three?"
    assert [without(text, one) for one in sentences(text)] == ["Two! Three?", "One. Three?", "One. Two!"]
    assert without("alone", (0, 5)) == ""


@given(st.text(alphabet="ab .!\n。'\"", max_size=120), st.integers(1, 6))
def test_every_word_is_in_one_of_at_most_so_many(text: str, at_most: int) -> None:
    found = sentences(text, at_most)
    assert len(found) <= at_most
    assert "".join("".join(text[a:b].split()) for a, b in found) == "".join(text.split())
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in found)
    for a, b in found:
        assert "".join(without(text, (a, b)).split()) == "".join((text[:a] + text[b:]).split())
