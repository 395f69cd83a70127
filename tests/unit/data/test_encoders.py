"""Sparse and dense encoders: against sentence-transformers, kept embeddings, mixtures by hand, and their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank.data.collection import Collection
from prorank.data.encoders import ENCODERS, encoder_row
from prorank.data.first_stage import first_stage
from prorank.data.teacher import check_teacher, mixture_parts, teacher_scores
from prorank.evaluate.baselines import parse_baseline
from prorank.evaluate.systems import SparseEncoderSystem
from prorank.published import fetch
from prorank.types import Document, Query
from testkit.tiny_models import make_tiny_bert

pytest.importorskip("sentence_transformers")

TEXTS = ["a bat and a cat.", "cars, trains", "fish", "dogs do not like the bath in the garden", "0 1 2", ""]


@pytest.fixture(scope="module")
def sparse_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("sparse") / "splade")


@pytest.fixture(scope="module")
def dense_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("dense"), "dense", seed=1)


@pytest.fixture
def collection() -> Collection:
    documents = {f"d{i}": Document(f"d{i}", text) for i, text in enumerate(TEXTS)}
    return Collection("tiny", documents, {"q0": Query("q0", "bats"), "q1": Query("q1", "a fish")})


def test_sparse_weights_are_those_of_sentence_transformers(sparse_folder: Path) -> None:
    from sentence_transformers.sparse_encoder import SparseEncoder as Reference

    from prorank.data.sparse import SparseEncoder

    encoder = SparseEncoder(str(sparse_folder), batch_size=4)
    expected = Reference(str(sparse_folder), device="cpu").encode(TEXTS, convert_to_sparse_tensor=False)
    found = encoder.encode(TEXTS).toarray()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS, batch_size=1).toarray(), found, atol=1e-5)
    assert encoder.encode([]).shape == (0, found.shape[1])


def test_the_system_scores_by_the_dot_product_and_alike_when_resumed(sparse_folder: Path) -> None:
    system = SparseEncoderSystem(str(sparse_folder))
    margins = system.score("a bat", TEXTS).margins
    weights = system.encoder.encode(["a bat", *TEXTS]).toarray()
    np.testing.assert_allclose(margins, weights[1:] @ weights[0], rtol=1e-4)
    resumed = SparseEncoderSystem(str(sparse_folder))
    assert (resumed.score("a bat", TEXTS[2:]).margins == margins[2:]).all()
    assert system.describe()["kind"] == "sparse-encoder"
    assert system.score("a bat", []).margins.shape == (0,)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_embeddings_are_computed_once_and_go_on_where_they_stopped(
    kind: str, sparse_folder: Path, dense_folder: Path, collection: Collection, own_home: Path, monkeypatch: Any
) -> None:
    from prorank.data import encoders
    from prorank.data.dense import BiEncoder
    from prorank.data.sparse import SparseEncoder

    monkeypatch.setattr(encoders.kept_vectors, "__kwdefaults__", {"part": 2, "progress": False})
    encoder: Any = SparseEncoder(str(sparse_folder)) if kind == "sparse" else BiEncoder(str(dense_folder))
    plain = encoder.encode
    seen: list[str] = []

    def stops(texts: list[str]) -> Any:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.extend(texts)
        return plain(texts)

    monkeypatch.setattr(encoder, "encode", stops)
    with pytest.raises(KeyboardInterrupt):
        encoder.documents(collection)
    again: list[str] = []
    monkeypatch.setattr(encoder, "encode", lambda texts: (again.extend(texts), plain(texts))[1])
    matrix = encoder.documents(collection)
    assert again == TEXTS[4:]
    dense = (lambda found: found.toarray()) if kind == "sparse" else (lambda found: found)
    np.testing.assert_allclose(dense(matrix), dense(plain(TEXTS)), atol=1e-5)
    again.clear()
    assert (dense(encoder.documents(collection)) == dense(matrix)).all()
    assert again == []
    kept = list((own_home / "cache" / "embeddings").iterdir())
    assert [file.suffix for file in kept] == [".npz" if kind == "sparse" else ".npy"]
    kept[0].write_bytes(kept[0].read_bytes()[:-20])  # damaged: computed anew
    np.testing.assert_allclose(dense(encoder.documents(collection)), dense(matrix), atol=1e-5)


def test_bfloat16_is_close_and_kept_apart(dense_folder: Path, sparse_folder: Path) -> None:
    from prorank.data.dense import BiEncoder
    from prorank.data.sparse import SparseEncoder

    for kind, folder in ((BiEncoder, dense_folder), (SparseEncoder, sparse_folder)):
        single, half = kind(str(folder)), kind(str(folder), dtype="bfloat16")
        assert single.identity != half.identity
        one, other = single.encode(TEXTS[:4]), half.encode(TEXTS[:4])
        if kind is SparseEncoder:
            one, other = one.toarray(), other.toarray()
        assert other.dtype == np.float32
        cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosines.min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(BiEncoder(str(dense_folder), dtype="bfloat16").encode(TEXTS), axis=1), 1)


def test_sparse_first_stage_ranks_all_documents(sparse_folder: Path, collection: Collection) -> None:
    from prorank.data.sparse import SparseEncoder

    run = first_stage(f"sparse:{sparse_folder}", collection, 3)
    encoder = SparseEncoder(str(sparse_folder))
    scores = encoder.encode(TEXTS).toarray() @ encoder.encode(["bats"]).toarray()[0]
    assert list(run["q0"]) == [f"d{i}" for i in np.argsort(-scores, kind="stable")[:3]]


def test_a_mixture_is_the_weighted_mean_of_normalised_scores(tmp_path: Path, collection: Collection) -> None:
    """By hand: a = (3, 1, 2) has mean 2 and deviation sqrt(2/3); b = (10, 40) lacks d2, which gets 10.

    z(a) = (1, -1, 0) * sqrt(3/2); b = (10, 40, 10): mean 20, deviation sqrt(200), z(b) = (-1, 2, -1) / sqrt(2);
    a + 3 b over 4.
    """
    (tmp_path / "a.trec").write_text("q0 Q0 d0 1 3 a\nq0 Q0 d2 2 2 a\nq0 Q0 d1 3 1 a\nq1 Q0 d3 1 5 a\n")
    (tmp_path / "b.trec").write_text("q0 Q0 d1 1 40 b\nq0 Q0 d0 2 10 b\n")
    candidates = {"q0": {"d0": 3.0, "d1": 2.0, "d2": 1.0}, "q1": {"d3": 1.0}}
    spec = f"mixture:{tmp_path / 'a.trec'}+3*{tmp_path / 'b.trec'}"
    scores = teacher_scores(spec, collection, candidates)
    root = 1.5**0.5
    expected = {"d1": (-root + 6 / 2**0.5) / 4, "d0": (root - 3 / 2**0.5) / 4, "d2": (-3 / 2**0.5) / 4}
    assert scores["q0"] == pytest.approx(expected)
    assert list(scores["q0"]) == ["d1", "d0", "d2"]
    assert scores["q1"] == {"d3": 0.0}  # one candidate: nothing to tell apart


def test_encoders_score_extra_documents_on_the_candidates_scale(
    sparse_folder: Path, dense_folder: Path, collection: Collection
) -> None:
    candidates = {"q0": {"d0": 1.0, "d1": 1.0, "d2": 1.0}}
    sparse, dense = f"sparse-encoder:{sparse_folder}", f"bi-encoder:{dense_folder}"
    parts = [teacher_scores(one, collection, candidates, extra={"q0": ["d3"]})["q0"] for one in (sparse, dense)]
    mixed = teacher_scores(f"mixture:{sparse}+2*{dense}", collection, candidates, extra={"q0": ["d3"]})["q0"]
    values = [np.array([part[f"d{i}"] for i in range(4)]) for part in parts]
    one, two = [(v - v[:3].mean()) / v[:3].std() for v in values]
    assert [mixed[f"d{i}"] for i in range(4)] == pytest.approx(((one + 2 * two) / 3).tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mixture:", "empty name"),
        ("mixture:bm25+", "empty name"),
        ("mixture:x*bm25", "weight 'x' of bm25 must be a number above 0"),
        ("mixture:0*bm25", "above 0"),
        ("mixture:nan*bm25", "above 0"),
        ("bi-encoder:splade-tiny", "splade-tiny is a sparse-encoder, not a bi-encoder"),
        ("sparse-encoder:/nowhere", "there is no folder /nowhere"),
    ],
)
def test_what_a_teacher_may_not_be(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_teacher(spec)


def test_names() -> None:
    assert mixture_parts("mixture:splade-tiny+2*all-mpnet-base-v2+given:teacher-splade") == [
        ("splade-tiny", 1.0), ("all-mpnet-base-v2", 2.0), ("given:teacher-splade", 1.0),
    ]  # fmt: skip
    assert check_teacher("mixture:splade-tiny+bm25+given:x+cross-encoder:some/model") == ["cross-encoder:some/model"]
    row = encoder_row("ALL-MINILM-L6-V2")
    assert row is not None
    assert row.name == "all-MiniLM-L6-v2"
    assert parse_baseline("sparse-encoder").name == "splade-tiny"
    assert parse_baseline("bi-encoder:all-mpnet-base-v2").name == "all-mpnet-base-v2"
    assert parse_baseline("bi-encoder").name == "all-MiniLM-L6-v2"
    with pytest.raises(ValueError, match="write sparse-encoder:splade-tiny"):
        parse_baseline("bi-encoder:splade-tiny")
    with pytest.raises(ValueError, match="there is no model"):
        parse_baseline("sparse-encoder:./nowhere")


def test_a_built_in_name_takes_the_folder_of_the_cache(
    sparse_folder: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from prorank.files import sha256_file

    row = ENCODERS["splade-tiny"]
    tiny = row._replace(sha256=sha256_file(sparse_folder / row.file))
    monkeypatch.setitem(ENCODERS, "splade-tiny", tiny)
    shutil.copytree(sparse_folder, fetch.cached_folder(tiny))
    candidates = {"q0": {"d0": 1.0, "d1": 1.0}}
    by_name = teacher_scores("splade-tiny", collection, candidates)
    assert by_name == teacher_scores(f"sparse-encoder:{sparse_folder}", collection, candidates)
