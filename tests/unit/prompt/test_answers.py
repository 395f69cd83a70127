"""Answers: what is well-formed, by text and by ids."""

from __future__ import annotations

import pytest

from prorank.prompt import answers

WORDS = ("0", "1")


@pytest.mark.parametrize(
    ("completion", "ended", "expected"),
    [
        ("0", True, 0),
        ("1", True, 1),
        ("1", False, None),
        (" 1", True, None),
        ("1.", True, None),
        ("1\n", True, None),
        ("", True, None),
        ("11", True, None),
        ("yes", True, None),
    ],
)
def test_an_answer_is_exactly_a_label_word_and_then_the_end(completion, ended, expected):
    assert answers.parse_answer(completion, WORDS, ended) == expected
    assert answers.format_score(completion, WORDS, ended) == float(expected is not None)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([8, 2], 0), ([9, 2], 1), ([9, 2, 0, 0], 1), ([9], None), ([9, 3], None), ([7, 2], None), ([2], None), ([], None)],
)
def test_ids_agree_with_text(ids, expected):
    assert answers.parse_answer_ids(ids, (8, 9), 2) == expected
    assert answers.format_score_ids(ids, (8, 9), 2) == float(expected is not None)


def test_malformed_answers_are_wrong_for_both_labels():
    assert answers.accuracy_score("maybe", WORDS, True) == answers.accuracy_score("maybe", WORDS, False) == 0.0
    assert answers.accuracy_score("1", WORDS, True) == answers.accuracy_score("0", WORDS, False) == 1.0
    assert answers.accuracy_score("1", WORDS, False) == answers.accuracy_score("0", WORDS, True) == 0.0
    assert answers.accuracy_score_ids([9, 2], (8, 9), 2, True) == 1.0
    assert answers.accuracy_score_ids([9, 5], (8, 9), 2, True) == 0.0


def test_first_label_gives_partial_credit():
    assert answers.first_label([9, 5, 5], (8, 9)) == 1
    assert answers.first_label([5, 9], (8, 9)) is None
    assert answers.first_label([], (8, 9)) is None


def test_label_words_must_be_two_different_words():
    with pytest.raises(ValueError, match="label_words must be two different"):
        answers.parse_answer("1", ("1", "1"))
    with pytest.raises(ValueError, match="label_ids must be two different"):
        answers.parse_answer_ids([1], (1,), 2)
