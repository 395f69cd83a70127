"""Queries without candidates: some are a warning, all are an error that says what to try; the same in training."""

from __future__ import annotations

import pytest

from prorank.cli.main import main
from prorank.data.collection import Collection
from prorank.data.convert import convert
from prorank.types import Document, Query

pytest.importorskip("bm25s")
pytest.importorskip("ir_measures")

TRAINED = ("warmup", "refine", "train")


@pytest.fixture
def folder(tmp_path):
    def make(found: int, queries: int = 12):
        texts = {f"q{i}": "where does a word stand" if i < found else f"zebra{i} quagga{i}" for i in range(queries)}
        collection = Collection(
            "toy",
            {f"d{i}": Document(f"d{i}", f"word {i + 10} stands here") for i in range(30)},
            {q: Query(q, text) for q, text in texts.items()},
            {q: {f"d{i}": 1} for i, q in enumerate(texts)},
            "test",
        )
        convert(collection, tmp_path / f"toy{found}", "beir")
        return str(tmp_path / f"toy{found}")

    return make


@pytest.mark.parametrize("command", ["evaluate", "analyze", "mine", "teach", "calibrate", "cascade", *TRAINED])
def test_nothing_found_at_all_is_an_error_that_says_what_to_try(folder, tmp_path, capsys, command):
    words = [command, "--data", folder(0), "--split", "test"]
    if command != "calibrate":
        words += ["--out", str(tmp_path / ("lists.jsonl" if command in ("mine", "teach") else "out"))]
    words += ["--teacher", "bm25"] if command == "teach" else []
    words += ["--dry-run"] if command == "calibrate" else []
    if command in ("warmup", "train"):
        words += ["--warmup.hard_negatives", "1"]
    assert main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "bm25 has no candidates for any of the" in line
    assert "--first-stage dense" in line
    if command in ("evaluate", "analyze"):
        assert "--run" in line


def test_some_queries_without_candidates_are_a_warning(folder, tiny_llama_dir, tmp_path, capsys):
    words = ["evaluate", "--data", folder(10), "--model", str(tiny_llama_dir), "--top-k", "2"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    expected = "warning: bm25 has no candidates for 2 of the 12 queries of toy10 ('q10', 'q11')"
    assert expected in capsys.readouterr().err
