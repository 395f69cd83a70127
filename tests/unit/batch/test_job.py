"""A job's parts, journal and refusals, with an engine without a model: a rerun is complete and scores nothing twice."""

from __future__ import annotations

import errno
import glob
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank.batch import job, writing
from prorank.batch.job import Scored, ScoreRun, score_pairs
from prorank.data.trec import read_run
from prorank.model.options import LoadOptions
from testkit import batch
from testkit.batch import margins_in, rows, write_jsonl

WANTED = [
    (r["query_id"], r["doc_id"], float(np.float32(batch.margin(r["query"], r["text"])))) for r in rows(7, 10)
]  # fmt: skip


@pytest.fixture(autouse=True)
def _hash_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(job.ENGINES, "hash", ("testkit.batch", "HashEngine"))
    batch.SCORED.clear()
    batch.DIES_AFTER.clear()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Seven queries of ten documents."""
    return write_jsonl(tmp_path / "pairs.jsonl", rows(7, 10))


def scored(tmp_path: Path, pairs: Path, *, model: str = "hash", **settings: Any) -> Scored:
    told = {"part_rows": 20, "input": [str(pairs)], "engine": "hash", "out": str(tmp_path / "out"), **settings}
    return score_pairs(ScoreRun(**told), LoadOptions(model))


def test_parts_hold_whole_queries_in_the_order_of_the_input(tmp_path: Path, pairs: Path) -> None:
    done = scored(tmp_path, pairs)
    assert (done.rows, done.parts, done.found, done.scored_rows) == (70, 4, 0, 70)
    assert margins_in(tmp_path / "out") == WANTED
    sizes = [len(p.read_text().splitlines()) for p in sorted((tmp_path / "out").glob("part-*"))]
    assert sizes == [20, 20, 20, 10]


def test_an_error_in_the_middle_and_the_same_command_again(tmp_path: Path, pairs: Path) -> None:
    batch.DIES_AFTER.append(3)
    with pytest.raises(RuntimeError, match="the engine broke"):
        scored(tmp_path, pairs)
    first = len(margins_in(tmp_path / "out"))
    assert 0 < first < 70
    batch.DIES_AFTER.clear()
    batch.SCORED.clear()
    (tmp_path / "out" / ".part-00000-00003.jsonl.abcd").write_text("half")  # as kill -9 leaves it
    done = scored(tmp_path, pairs)
    assert (done.scored_rows, sum(len(task.rows) for task in batch.SCORED)) == (70 - first, 70 - first)
    assert margins_in(tmp_path / "out") == WANTED
    assert not list((tmp_path / "out").glob(".part-*"))
    batch.SCORED.clear()
    assert scored(tmp_path, pairs).scored_rows == 0
    assert not batch.SCORED


def test_a_full_disk_loses_nothing(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, room = writing._jsonl, iter([True, True])

    def fills(part: Any) -> Any:
        yield from whole(part) if next(room, False) else [next(whole(part))]
        if len(list((tmp_path / "out").glob("part-*"))) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "_jsonl", fills)
    with pytest.raises(ValueError, match=r"out: .*No space left on device.*the parts that are finished stay"):
        scored(tmp_path, pairs)
    assert len(list((tmp_path / "out").iterdir())) == 3  # two parts and the journal, nothing half written
    monkeypatch.setattr(writing, "_jsonl", whole)
    assert scored(tmp_path, pairs).found == 2
    assert margins_in(tmp_path / "out") == WANTED


def test_a_lost_part_and_a_half_written_line_are_made_again(tmp_path: Path, pairs: Path) -> None:
    scored(tmp_path, pairs)
    (tmp_path / "out" / "part-00000-00001.jsonl").unlink()
    journal = tmp_path / "out" / ".journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert scored(tmp_path, pairs).found == 2
    assert margins_in(tmp_path / "out") == WANTED


def test_the_journal_is_hidden_and_one_of_an_earlier_version_goes_on(tmp_path: Path, pairs: Path) -> None:
    scored(tmp_path, pairs)
    found = glob.glob(str(tmp_path / "out" / "*.jsonl"))  # as a shell does
    assert len(found) == 4
    assert all("part-" in path for path in found)
    (tmp_path / "out" / ".journal.jsonl").rename(tmp_path / "out" / "journal.jsonl")
    assert scored(tmp_path, pairs).found == 4
    assert not (tmp_path / "out" / "journal.jsonl").exists()
    (tmp_path / "out" / "journal.jsonl").write_text('{"mine": 1}\n')
    assert scored(tmp_path, pairs).found == 4
    assert (tmp_path / "out" / "journal.jsonl").read_text() == '{"mine": 1}\n'


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"model": "other"}, "model was"), ({"part_rows": 30}, "part_rows was 20, is 30"),
     ({"instruction": "x"}, "instruction was"), ({"format": "trec"}, "format was jsonl, is trec")],
)  # fmt: skip
def test_another_job_is_refused(tmp_path: Path, pairs: Path, changed: dict[str, Any], told: str) -> None:
    scored(tmp_path, pairs)
    with pytest.raises(ValueError, match=rf"out: .*belongs to another job \({told}"):
        scored(tmp_path, pairs, **changed)
    assert scored(tmp_path, pairs, **changed, restart=True).found == 0


def test_changed_input_is_refused(tmp_path: Path, pairs: Path) -> None:
    scored(tmp_path, pairs)
    pairs.write_text(pairs.read_text().replace("passage 9 of 6", "passage 8 of 6"))
    with pytest.raises(ValueError, match=r"another job \(input was"):
        scored(tmp_path, pairs)


def test_formats_hold_the_same(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.Table.from_pylist(rows(7, 10))
    parquet.write_table(table.slice(0, 40), tmp_path / "a.parquet")
    parquet.write_table(table.slice(40), tmp_path / "b.parquet")
    scored(tmp_path, tmp_path / "*.parquet", out=str(tmp_path / "p"))
    found = parquet.read_table(sorted((tmp_path / "p").glob("part-*.parquet"))).to_pylist()
    assert [(r["query_id"], r["doc_id"], r["margin"]) for r in found] == WANTED
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(7, 10))
    scored(tmp_path, tmp_path / "c.jsonl.gz", out=str(tmp_path / "t"), format="trec")
    (tmp_path / "all.trec").write_text("".join(p.read_text() for p in sorted((tmp_path / "t").glob("*.trec"))))
    run = read_run(tmp_path / "all.trec")
    assert {(q, d, s) for q, listed in run.items() for d, s in listed.items()} == set(WANTED)


def test_a_run_with_a_beir_folder(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": r["doc_id"], "text": r["text"]} for r in rows(7, 10)])
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": f"q{q}", "text": f"query {q}"} for q in range(7)])
    (tmp_path / "r.trec").write_text("".join(f"{q} Q0 {d} 1 {-i} x\n" for i, (q, d, _) in enumerate(WANTED)))
    done = score_pairs(
        ScoreRun(out=str(tmp_path / "o"), run=str(tmp_path / "r.trec"), data=str(tmp_path), engine="hash")
    )
    assert done.rows == 70
    run = read_run(tmp_path / "o" / "part-00000-00000.trec")
    assert {(q, d, s) for q, listed in run.items() for d, s in listed.items()} == set(WANTED)


@pytest.mark.parametrize(
    ("line", "told"),
    [({"query_id": "q", "query": "x", "doc_id": "d"}, r"pairs.jsonl:71: no value under 'text'"),
     ({"query_id": "q", "query": 3, "doc_id": "d", "text": "t"}, r":71: expected a string under 'query', got int"),
     ({"query_id": ["q"], "query": "x", "doc_id": "d", "text": "t"}, r":71: .*query_id")],
)  # fmt: skip
def test_bad_rows_are_told_before_anything_is_scored(tmp_path: Path, pairs: Path, line: Any, told: str) -> None:
    pairs.write_text(pairs.read_text() + json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=told):
        scored(tmp_path, pairs)
    assert not batch.SCORED


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"engine": "spark"}, "engine: expected local or ray"), ({"input": ["no-such"]}, "input: there is no file"),
     ({"input": None}, "input: give files"), ({"input": None, "run": "r"}, "run: needs corpus and queries"),
     ({"part_rows": 0}, "part_rows must be at least 1"),
     ({"engine": "local", "address": "auto"}, "address: the engine")],
)  # fmt: skip
def test_settings_are_told(tmp_path: Path, pairs: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        scored(tmp_path, pairs, **settings)


def test_a_missing_column_of_parquet_is_named(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"query": ["a"], "text": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x.parquet: no column 'query_id' \(columns: query, text\)"):
        scored(tmp_path, tmp_path / "x.parquet")
