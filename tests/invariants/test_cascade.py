"""Stopping half way: what is finished is exact, the rest ranks below it; a read-out predicts what it was fitted on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prorank import Reranker
from prorank.cascade import FILE, Cascade
from prorank.cli.main import main
from prorank.scoring import score_cascade
from tiny_models import make_tiny

QUERY = "how do vaccines create immunity"


def documents(count: int = 30) -> list[str]:
    rng = np.random.default_rng(0)
    words = "germ cell immune vaccine bread market antibody memory town".split()  # noqa: SIM905
    texts = [" ".join(rng.choice(words, int(rng.integers(2, 40)))) for _ in range(count)]
    texts[7] = texts[3]
    return texts


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def reranker(request: pytest.FixtureRequest, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    from transformers import AutoTokenizer

    folder = make_tiny(
        tmp_path_factory.mktemp(request.param), request.param, AutoTokenizer.from_pretrained(base_folder)
    )
    return Reranker.from_pretrained(folder, dtype="float32", max_length=200)


@pytest.fixture
def cascade() -> Cascade:
    weights = np.random.default_rng(1).normal(size=32).astype(np.float32)
    return Cascade(1, weights, 10, {"fast": 1e9, "faster": 0.0})


def test_what_is_finished_is_exact_and_the_rest_ranks_below(reranker: Reranker, cascade: Cascade) -> None:
    from prorank.backends.segments import TorchEarlyExit

    texts = documents()
    wanted = reranker.margins(QUERY, texts)
    group = reranker.encode(QUERY, texts).group
    early = TorchEarlyExit(reranker.backend, cascade.layer, cascade.weights)
    margins, exact = score_cascade(early, group, top_k=5, tolerance=1e9, batch_tokens=200)
    assert exact.all()
    np.testing.assert_allclose(margins, wanted, atol=1e-4)
    margins, exact = score_cascade(early, group, top_k=5, tolerance=0.0, batch_tokens=200)
    assert 5 <= exact.sum() <= 7  # equal estimates are finished together
    np.testing.assert_allclose(margins[exact], wanted[exact], atol=1e-4)
    assert margins[~exact].max() < margins[exact].min()
    estimates = np.concatenate([early.begin(group._replace(own_ids=[ids]))[1] for ids in group.own_ids])
    assert set(np.flatnonzero(exact)) == set(np.flatnonzero(estimates >= np.sort(estimates)[-5] - 1e-4))
    assert (np.diff(margins[~exact][np.argsort(estimates[~exact])]) >= -1e-4).all()


def test_a_bound_on_memory_finishes_more_and_never_less(reranker: Reranker, cascade: Cascade) -> None:
    from prorank.backends.segments import TorchEarlyExit

    group = reranker.encode(QUERY, documents()).group
    early = TorchEarlyExit(reranker.backend, cascade.layer, cascade.weights)
    _, all_held = score_cascade(early, group, top_k=5, tolerance=0.1, batch_tokens=100)
    _, few_held = score_cascade(early, group, top_k=5, tolerance=0.1, batch_tokens=100, held_tokens=1)
    assert (few_held | ~all_held).all()


def test_rank_with_a_read_out(reranker: Reranker, cascade: Cascade) -> None:
    with pytest.raises(ValueError, match="prorank cascade"):
        reranker.rank(QUERY, documents(), top_k=3, cascade="fast")
    with_one = Reranker(reranker.backend, reranker.encoder, cascade=cascade)
    exact = [r.index for r in reranker.rank(QUERY, documents(), top_k=3)]
    assert [r.index for r in with_one.rank(QUERY, documents(), top_k=3, cascade="fast")] == exact
    assert len(with_one.rank(QUERY, documents(), top_k=3, cascade="faster")) == 3
    assert len(with_one.rank(QUERY, documents()[:4], cascade="faster")) == 4
    for options, message in (({"cascade": "slow"}, "fast, faster"), ({"cascade": "fast", "top_k": 11}, "top 10")):
        with pytest.raises(ValueError, match=message):
            with_one.rank(QUERY, documents(), **options)


def test_a_fitted_read_out_keeps_what_it_should() -> None:
    """States that hold the margin in one direction at layer 2 and nothing of it at layer 1."""
    from prorank.train.cascade import Seen, choose, fit_exits

    rng = np.random.default_rng(0)
    seen = []
    for _ in range(60):
        margins = rng.normal(size=40).astype(np.float32)
        noise, states = rng.normal(size=(2, 40, 8)).astype(np.float32)
        states[:, 3] = 2 * margins + 0.2 * states[:, 3] + rng.normal()  # and an offset of the query's own
        seen.append(Seen({1: noise, 2: states}, margins))
    useless, useful = fit_exits(seen, 4, top_k=10)
    assert abs(useless.correlation) < 0.3
    assert useful.correlation > 0.95
    assert useless.kept["fast"] > 0.8
    assert useful.kept["fast"] < 0.6
    assert useful.kept["faster"] <= useful.kept["fast"]
    assert useful.cost["fast"] == pytest.approx(0.5 + 0.5 * useful.kept["fast"])
    assert choose([useless, useful]).cascade.layer in (1, 2)
    with pytest.raises(ValueError, match="10 queries"):
        fit_exits(seen[:5], 4)


def test_command_fits_and_rank_uses_it(base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    plain = make_tiny(tmp_path / "plain", "llama", tokenizer)
    Reranker.from_pretrained(plain, dtype="float32", max_length=160).save(tmp_path / "model")
    lists = tmp_path / "lists.jsonl"
    texts = documents()[:12]
    lines = [{"query": f"{text} {i}", "documents": texts, "labels": [1] + [0] * 11} for i, text in enumerate(texts)]
    lists.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    fit = ["cascade", "--model", str(tmp_path / "model"), "--data", str(lists), "--first-stage", "given"]
    fit += ["--layers", "1", "--top", "3", "--candidates", "11", "--dtype", "float32", "--out", str(tmp_path / "out")]
    assert main(fit) == 0
    assert "1 of 2 *" in capsys.readouterr().out
    assert (tmp_path / "out" / FILE).is_file()
    passages = tmp_path / "passages.txt"
    passages.write_text("\n".join(texts), "utf-8")
    rank = ["rank", "--query", QUERY, "--documents", str(passages), "--format", "jsonl", "--top-k", "3"]
    assert main([*rank, "--model", str(tmp_path / "out"), "--cascade", "fast"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main([*rank, "--model", str(tmp_path / "model"), "--cascade", "fast"]) == 2
    assert "prorank cascade" in capsys.readouterr().err
    assert main(fit) == 2
    assert "--out" in capsys.readouterr().err
    damaged = tmp_path / "out" / FILE
    damaged.write_bytes(damaged.read_bytes()[:-4])
    assert main([*rank, "--model", str(tmp_path / "out"), "--cascade", "fast"]) == 2
