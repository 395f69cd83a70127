"""BM25 beyond English words: scripts without spaces, single letters, stop words; English stays as it is."""

from __future__ import annotations

import pytest

from prorank.data import first_stage
from prorank.data.bm25 import key
from prorank.data.collection import Collection
from prorank.types import Document, Query

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

ENGLISH = {
    "e1": "The vaccine trains the immune system.",
    "e2": "Sugar is sweet, and so are the fast cars",
    "e3": "C is a programming language",
    "e4": "R is for statistics; to be or not to be",
}
OTHERS = {
    "zh1": "疫苗训练人体的免疫系统。",
    "zh2": "糖是甜的。",
    "ja1": "ワクチンは免疫系を訓練する。",
    "ja2": "砂糖は甘い。",
    "th1": "วัคซีนฝึกระบบภูมิคุ้มกัน",
    "th2": "น้ำตาลหวาน",
    "mixed": "使用Python语言编程",
}


def run_of(documents, **queries):
    found = Collection(
        "c",
        {d: Document(d, text) for d, text in documents.items()},
        {q: Query(q, text) for q, text in queries.items()},
    )
    return first_stage("bm25", found, 10)


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("疫苗如何工作", "zh1"),
        ("什么是甜的", "zh2"),
        ("ワクチンの仕組み", "ja1"),
        ("甘いものは何か", "ja2"),
        ("วัคซีนทำงานอย่างไร", "th1"),
        ("ﾜｸﾁﾝ", "ja1"),  # half-width letters of the same word
        ("python 语言", "mixed"),
        ("糖", "zh2"),  # one character: no bigram
    ],
)
def test_scripts_without_spaces_are_matched_by_bigrams(query, best):
    assert next(iter(run_of({**ENGLISH, **OTHERS}, q=query)["q"])) == best


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("C", ["e3"]),
        ("R", ["e4"]),
        ("what about C?", ["e3"]),  # its words are in no document
        ("to be or not to be", ["e4"]),
        ("the zebra", []),  # asks for a zebra, not for "the"
        ("it's zebra's", []),
        ("???", []),
    ],
)
def test_single_letters_and_stop_words_are_found_where_nothing_else_is(query, found):
    assert list(run_of(ENGLISH, q=query)["q"]) == found


def test_english_lists_are_bm25s_own_whatever_stands_beside_them():
    """Compared with bm25s called by hand: the same documents, bit for bit the same scores."""
    import bm25s
    import Stemmer

    documents, query = {**ENGLISH, **OTHERS}, "sweet sugar and the immune systems of a car"
    options = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(bm25s.tokenize(list(documents.values()), **options), show_progress=False)
    (terms,) = bm25s.tokenize([query], return_ids=False, **options)
    scores = index.get_scores([term for term in terms if term in index.vocab_dict])
    expected = {d: float(s) for d, s in zip(documents, scores, strict=True) if s > 0}
    assert run_of(documents, q=query, zh="什么是甜的", c="C")["q"] == expected
    assert run_of(documents, q=query)["q"] == expected


def test_a_list_kept_under_the_old_rules_is_not_reused():
    from prorank.data.terms import READING

    assert READING in key(Collection("c", {}, {}), 10)
