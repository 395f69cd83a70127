"""Pairs that were scored before: the same margins, less work, another model's never, and bounded."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank import Reranker
from prorank.backends.fake import FakeBackend
from prorank.pair_cache import FilePairs, MemoryPairs, PairCache, open_pair_cache
from prorank.prompt.encoder import PromptEncoder
from prorank.prompt.presets import PRESETS

TEXTS = [f"document {i} is about {i * i}" for i in range(30)]
LONG = "".join(f"Sentence {i} speaks of the number {i * 7}. " for i in range(80))


class Counting(FakeBackend):
    """Counts the rows that it computes."""

    rows = 0

    def label_logits(self, group: Any) -> Any:
        self.rows += len(group.own_ids)
        return super().label_logits(group)


def make(tokenizer: Any, cache: PairCache | None, weights: str = "a" * 64, **options: Any) -> Reranker:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], **options)
    return Reranker(Counting(), encoder, name="fake", weights_sha256=weights, pair_cache=cache)


def rows_of(reranker: Reranker) -> int:
    backend = reranker.backend
    assert isinstance(backend, Counting)
    return backend.rows


@pytest.mark.parametrize("where", ["memory", "file"])
def test_what_was_scored_is_not_scored_again(tokenizer: Any, tmp_path: Path, where: str) -> None:
    file = str(tmp_path / "pairs.sqlite")
    cache = open_pair_cache("memory" if where == "memory" else file)
    plain, cached = make(tokenizer, None), make(tokenizer, cache)
    wanted = plain.rank("q", TEXTS)
    assert cached.rank("q", TEXTS[:20]) == plain.rank("q", TEXTS[:20])
    assert (cache.hits, cache.misses, rows_of(cached)) == (0, 20, 20)
    seen: list[int] = []
    np.testing.assert_array_equal(cached.margins("q", TEXTS, on_scored=seen.append), plain.margins("q", TEXTS))
    assert (cache.hits, cache.misses, rows_of(cached), sum(seen)) == (20, 30, 30, 30)
    assert cached.rank("q", TEXTS) == wanted
    assert list(cached.score([("q", TEXTS[0]), ("p", TEXTS[0])])) == list(
        plain.score([("q", TEXTS[0]), ("p", TEXTS[0])])
    )
    assert rows_of(cached) == 31, "another query is another pair"
    assert list(cached.margins("q", TEXTS[:1], instruction="x")) == list(plain.margins("q", TEXTS[:1], instruction="x"))
    assert rows_of(cached) == 32, "another instruction, too"
    other = make(tokenizer, cache, weights="b" * 64)
    other.margins("q", TEXTS[:1])
    assert rows_of(other) == 1, "another model's pairs are not ours"
    if where == "file":
        again = make(tokenizer, open_pair_cache(file))
        assert again.rank("q", TEXTS) == wanted
        assert rows_of(again) == 0, "the file lasts"


def test_windows_are_kept_one_by_one(tokenizer: Any) -> None:
    options = {"long_documents": "max_window", "max_length": 128}
    cached, plain = make(tokenizer, open_pair_cache("memory"), **options), make(tokenizer, None, **options)
    two = cached.rank("q", [LONG], max_chunks_per_doc=2, return_chunks=True)
    assert two == plain.rank("q", [LONG], max_chunks_per_doc=2, return_chunks=True)
    assert rows_of(cached) == 2
    assert cached.rank("q", [LONG], return_chunks=True) == plain.rank("q", [LONG], return_chunks=True)
    assert rows_of(cached) == len(plain.encode("q", [LONG]).group.own_ids)


def test_both_stores_are_bounded(tmp_path: Path) -> None:
    for store in (MemoryPairs(5), FilePairs(tmp_path / "p.sqlite", 5)):
        for i in range(12):
            store.put({bytes([i]): float(i)})
        assert store.get([bytes([i]) for i in range(12)]) == {bytes([i]): float(i) for i in range(7, 12)}
    store.put({bytes([i]): float(i) for i in range(100)})
    (count,) = sqlite3.connect(tmp_path / "p.sqlite").execute("SELECT count(*) FROM pairs").fetchone()
    assert count == 5


def test_bad_places_are_named(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be taken for one " * 100)
    for where in ("memory:0", "memory:x", str(tmp_path / "text"), str(tmp_path / "no" / "folder"), str(tmp_path)):
        with pytest.raises(ValueError, match="pair_cache"):
            open_pair_cache(where)
    with pytest.raises(ValueError, match="pair_cache: the hash of the weights is not known"):
        make(tokenizer, open_pair_cache("memory"), weights="")


def test_a_file_in_trouble_costs_no_scores(tokenizer: Any, tmp_path: Path) -> None:
    cached = make(tokenizer, open_pair_cache(str(tmp_path / "p.sqlite")))
    sqlite3.connect(tmp_path / "p.sqlite").execute("DROP TABLE pairs")
    with pytest.warns(RuntimeWarning, match="pair_cache: no such table: pairs; going on without"):
        assert cached.rank("q", TEXTS) == make(tokenizer, None).rank("q", TEXTS)


def test_from_pretrained_takes_a_place(tiny_llama_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.sqlite"
    options = {"dtype": "float32", "backend": "torch"}
    first = Reranker.from_pretrained(tiny_llama_dir, pair_cache=file, **options)
    second = Reranker.from_pretrained(tiny_llama_dir, pair_cache=file, **options)
    assert first.rank("q", TEXTS[:3]) == second.rank("q", TEXTS[:3])
    assert second.pair_cache is not None
    assert (second.pair_cache.hits, second.pair_cache.misses) == (3, 0)
