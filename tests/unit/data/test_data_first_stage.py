"""First stages, negatives and the built-in collections."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from benchmarks.runs.padded_lists import padded_lists

from prorank.data import first_stage, load_collection
from prorank.data.collection import Collection
from prorank.data.first_stage import fuse
from prorank.data.negatives import mine_negatives
from prorank.data.overlap import find_overlap, without
from prorank.data.stdlib import SPLITS, _first_sentence, load_stdlib
from prorank.data.trec import write_run
from prorank.types import Document, Query


def collection(**texts):
    return Collection(
        "c",
        {d: Document(d, text) for d, text in texts.items()},
        {"q": Query("q", "fast cars"), "stop": Query("stop", "of the")},
        {"q": {"a": 1}},
        "test",
    )


def test_bm25_retrieves_only_documents_that_share_a_stem_and_keeps_corpus_order_in_ties():
    pytest.importorskip("bm25s")
    run = first_stage("bm25", collection(z="a car", a="a car", n="the boats", b="the fastest car is a fast car"), 10)
    assert list(run["q"]) == ["b", "z", "a"]
    assert run["q"]["z"] == run["q"]["a"] > 0
    assert list(run["stop"]) == ["n", "b"]  # nothing but stop words: these are looked for
    assert list(first_stage("bm25", collection(z="a car", a="a car", b="fast car"), 2)["q"]) == ["b", "z"]


def test_the_benchmarks_fill_lists_up_with_documents_of_score_zero():
    pytest.importorskip("bm25s")
    texts = {"z": "a car", "a": "a car", "n": "the boats", "b": "fast car", "x": "", "y": "a town"}
    plain, padded = first_stage("bm25", collection(**texts), 5), padded_lists(collection(**texts), 5)
    assert list(plain["q"]) == ["b", "z", "a"]
    assert list(padded["q"])[:3] == ["b", "z", "a"]
    assert {q: len(listed) for q, listed in padded.items()} == {"q": 5, "stop": 5}
    assert list(padded["q"].values())[3:] == [0.0, 0.0]
    assert padded_lists(collection(**texts), 50)["stop"].keys() == texts.keys()
    assert padded_lists(collection(), 5) == {"q": {}, "stop": {}}


def test_bm25_of_nothing():
    pytest.importorskip("bm25s")
    assert first_stage("bm25", collection(), 5) == {"q": {}, "stop": {}}
    assert first_stage("bm25", collection(a="", b="???"), 5) == {"q": {}, "stop": {}}


def test_bm25_is_kept_by_content_and_a_damaged_cache_is_computed_anew(tmp_path, monkeypatch):
    pytest.importorskip("bm25s")
    monkeypatch.setenv("PRORANK_CACHE", str(tmp_path))
    one = first_stage("bm25", collection(a="fast car"), 5)
    (file,) = (tmp_path / "first-stage").iterdir()
    before = file.stat().st_mtime_ns
    assert first_stage("bm25", collection(a="fast car"), 5) == one
    assert file.stat().st_mtime_ns == before
    assert first_stage("bm25", collection(a="fast car", b="cars"), 5) != one
    assert len(list((tmp_path / "first-stage").iterdir())) == 2
    for damage in (b"junk", file.read_bytes()[:-9]):
        file.write_bytes(damage)
        assert first_stage("bm25", collection(a="fast car"), 5) == one


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    pytest.importorskip("bm25s")
    (tmp_path / "file").touch()
    monkeypatch.setenv("PRORANK_CACHE", str(tmp_path / "file"))
    assert list(first_stage("bm25", collection(a="fast car"), 5)["q"]) == ["a"]


def test_a_given_run_is_cut_and_checked(tmp_path):
    path = tmp_path / "r.trec"
    path.write_text("q Q0 a 1 2 t\nq Q0 b 2 1 t\nother Q0 x 1 1 t\n")
    assert first_stage(str(path), collection(a="", b=""), 1) == {"q": {"a": 2.0}}
    with pytest.raises(ValueError, match="lists 'b' for query 'q', which is not in c"):
        first_stage(path, collection(a=""), 2)
    path.write_text("other Q0 x 1 1 t\n")
    with pytest.raises(ValueError, match="has none of the queries"):
        first_stage(path, collection(a=""), 2)


def test_unknown_first_stages_list_what_there_is():
    with pytest.raises(ValueError, match="or one of bm25, dense"):
        first_stage("bm52", collection(), 5)
    with pytest.raises(ValueError, match="came with: none"):
        first_stage("given", collection(), 5)
    with pytest.raises(ValueError, match="top-k must be at least 1"):
        first_stage("bm25", collection(), 0)


def test_reciprocal_rank_fusion_by_hand():
    """k = 60: b is 1/61 + 1/62, a is 1/62, c is 1/61: b > c > a."""
    fused = fuse([{"q": {"b": 9.0, "a": 8.0}}, {"q": {"c": 0.2, "b": 0.1}}])
    assert list(fused["q"]) == ["b", "c", "a"]
    assert fused["q"]["b"] == pytest.approx(1 / 61 + 1 / 62)


def test_negatives_leave_out_relevant_documents_their_copies_and_what_is_out_of_the_window():
    data = collection(a="good", copy="good", n1="x", n2="y", n3="z")
    run = {"q": {"n1": 9.0, "a": 8.0, "copy": 7.0, "n2": 6.0, "n3": 5.0}}
    assert mine_negatives(data, run) == {"q": ["n1", "n2", "n3"]}
    assert mine_negatives(data, run, rank_from=2, rank_to=4) == {"q": ["n2"]}
    assert mine_negatives(data, run, negatives=1) == {"q": ["n1"]}
    assert mine_negatives(data, run, absolute_margin=2.0) == {"q": ["n2", "n3"]}  # a has 8: at most 6
    assert mine_negatives(data, run, relative_margin=0.3) == {"q": ["n3"]}  # at most 5.6
    teacher = {"good": 1.0, "x": 0.9, "y": 0.1, "z": 0.2}
    assert mine_negatives(
        data, run, absolute_margin=0.5, teacher=lambda _, texts: np.array([teacher[t] for t in texts])
    ) == {"q": ["n2", "n3"]}
    assert len(mine_negatives(data, run, negatives=2, pick="random")["q"]) == 2
    with pytest.raises(ValueError, match="1 <= from <= to"):
        mine_negatives(data, run, rank_from=5, rank_to=4)


def test_stdlib_splits_share_documents_and_no_module():
    loaded = {split: load_stdlib(split) for split in SPLITS}
    modules = {s: {d.partition(".")[0] for judged in c.qrels.values() for d in judged} for s, c in loaded.items()}
    assert not modules["train"] & modules["dev"]
    assert not modules["train"] & modules["test"]
    assert not modules["dev"] & modules["test"]
    texts = [query.text for c in loaded.values() for query in c.queries.values()]
    assert len(texts) == len(set(texts))
    assert min(len(c.queries) for c in loaded.values()) > 50
    assert len({c.documents_hash for c in loaded.values()}) == 1
    assert load_stdlib("dev").queries_hash == loaded["dev"].queries_hash
    assert not {"antigravity", "this"} & set(sys.modules)  # parsed, not imported
    document = loaded["train"].documents["textwrap.dedent"]
    assert document.title == "textwrap.dedent(text)"
    with pytest.raises(ValueError, match="name one"):
        load_collection("stdlib")


def test_first_sentence():
    assert _first_sentence("Return a\nthing.  And more.") == ("Return a thing.", "And more.")
    assert _first_sentence("Use os.path now\n\nrest") == ("Use os.path now", "rest")
    assert _first_sentence("No end") == ("No end", "")


def test_ir_datasets_by_id(tmp_path, monkeypatch):
    """The library is real; its data set is made of local files, since the catalogue's would be downloaded."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    ir_datasets = pytest.importorskip("ir_datasets")
    (tmp_path / "docs.tsv").write_text("d1\tapples\nd2\tcars\n")
    (tmp_path / "queries.tsv").write_text("q1\tfruit\nq2\tunjudged\n")
    (tmp_path / "qrels.txt").write_text("q1 0 d1 1\nq1 0 d2 -1\n")
    dataset = ir_datasets.create_dataset(
        docs_tsv=str(tmp_path / "docs.tsv"),
        queries_tsv=str(tmp_path / "queries.tsv"),
        qrels_trec=str(tmp_path / "qrels.txt"),
    )
    monkeypatch.setattr(ir_datasets, "load", lambda name: {"mine/test": dataset}[name])
    loaded = load_collection("irds:mine", "test")
    assert dict(loaded.documents) == {"d1": Document("d1", "apples"), "d2": Document("d2", "cars")}
    assert loaded.queries == {"q1": Query("q1", "fruit")}
    assert loaded.qrels == {"q1": {"d1": 1, "d2": 0}}
    with pytest.raises(ValueError, match="ir_datasets knows no 'other'"):
        load_collection("irds:other")


def test_a_missing_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'prorank\[ir-datasets\]'"):
        load_collection("irds:beir/nfcorpus/test")


def test_a_run_is_read_without_what_was_taken_out(tmp_path):
    """Passages that an evaluation set holds too leave the corpus, and the run file goes on listing them."""
    documents = {i: Document(i, text) for i, text in (("1", "shared words"), ("2", "own words"), ("3", "others"))}
    path = tmp_path / "given.trec"
    write_run(path, {"q": {"1": 3.0, "2": 2.0, "3": 1.0}})
    training = Collection("t", documents, {"q": Query("q", "words")}, {"q": {"2": 1}}, runs={"given": path})
    measured = Collection("m", {"x": Document("x", "Shared, words!")}, {"y": Query("y", "other")}, {})
    left = without(training, find_overlap(training, [measured]))
    assert first_stage("given:given", left, top_k=1) == {"q": {"2": 2.0}}
    write_run(path, {"q": {"9": 3.0, "2": 2.0}})
    with pytest.raises(ValueError, match="lists '9' for query 'q'"):
        first_stage("given:given", left)
