"""Stopping half way: what is finished is exact, the rest ranks below it; a read-out predicts what it was fitted on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prorank import Reranker
from prorank.cli.main import main
from prorank.early_exit.fit import Seen, fit_cascade
from prorank.early_exit.readouts import FILE, LEVELS, Cascade
from prorank.early_exit.scoring import score_cascade
from prorank.early_exit.torch import TorchEarlyExit, features
from prorank.evaluate.systems import RerankerSystem
from prorank.types import EncodedGroup
from testkit.tiny_models import make_tiny

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
        tmp_path_factory.mktemp(request.param), request.param, AutoTokenizer.from_pretrained(base_folder), layers=3
    )
    return Reranker.from_pretrained(folder, dtype="float32", max_length=200)


@pytest.fixture
def cascade() -> Cascade:
    """Exits after each of the two layers that are not the last."""
    weights = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    return Cascade((1, 2), weights, 10, {"fast": (1e9, 1e9), "faster": (0.0, 0.0)})


def test_what_is_finished_is_exact_and_the_rest_ranks_below(reranker: Reranker, cascade: Cascade) -> None:
    texts = documents()
    wanted = reranker.margins(QUERY, texts)
    group = reranker.encode(QUERY, texts).group
    early = TorchEarlyExit(reranker.backend, cascade.layers, cascade.weights)
    margins, exact = score_cascade(early, group, top_k=5, tolerances=(1e9, 1e9), batch_tokens=200)
    assert exact.all()
    np.testing.assert_allclose(margins, wanted, atol=1e-4)
    at_first, at_second = estimates(early, group)
    for tolerance in (0.0, 0.5):
        margins, exact = score_cascade(early, group, top_k=5, tolerances=(tolerance, 0.0), batch_tokens=200)
        further = at_first >= np.sort(at_first)[-5] - tolerance - 1e-4
        assert set(np.flatnonzero(exact)) == set(
            np.flatnonzero(further & (at_second >= np.sort(at_second[further])[-5] - 1e-4))
        )
        assert 5 <= exact.sum() <= 7  # equal estimates are finished together
        np.testing.assert_allclose(margins[exact], wanted[exact], atol=1e-4)
        assert margins[~exact].max() < margins[exact].min()
        if (further & ~exact).any():
            assert margins[further & ~exact].min() > margins[~further].max()  # who came further is above
        for group_of, found in ((~further, at_first), (further & ~exact, at_second)):
            assert (np.diff(margins[group_of][np.argsort(found[group_of])]) >= -1e-4).all()


def estimates(early: TorchEarlyExit, group: EncodedGroup) -> tuple[np.ndarray, np.ndarray]:
    """Every row's estimates at the two exits, computed alone."""
    found = []
    for ids in group.own_ids:
        state, first = early.begin(group._replace(own_ids=[ids]))
        _, second = early.go_on([(state, [0])])
        found.append((first[0], second[0]))
    return np.array(found).T[0], np.array(found).T[1]


def test_features_do_not_read_the_padding() -> None:
    rng = np.random.default_rng(0)
    hidden = torch.tensor(rng.normal(size=(2, 5, 4)), dtype=torch.float32)
    found = features(hidden, torch.tensor([5, 2]))
    states = hidden[1, :2].numpy()
    states /= np.sqrt((states**2).mean(-1, keepdims=True))
    np.testing.assert_allclose(found[1, :4], states[1], rtol=1e-5)
    np.testing.assert_allclose(found[1, 4:], states.mean(0), rtol=1e-5)


def test_a_bound_on_memory_finishes_more_and_never_less(reranker: Reranker, cascade: Cascade) -> None:
    group = reranker.encode(QUERY, documents()).group
    early = TorchEarlyExit(reranker.backend, cascade.layers, cascade.weights)
    asked = {"top_k": 5, "tolerances": (0.1, 1e9), "batch_tokens": 100}
    _, all_held = score_cascade(early, group, **asked)
    _, few_held = score_cascade(early, group, **asked, held_tokens=1)
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


def test_fitted_read_outs_keep_what_they_should() -> None:
    """Features that hold the margin in one direction at layers 2 and 3, ever more clearly, and nothing of it at 1."""
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(60):
        margins = rng.normal(size=40).astype(np.float32)
        layers = {}
        for layer, noise in ((1, None), (2, 0.5), (3, 0.05)):
            features = rng.normal(size=(40, 8))
            if noise is not None:
                features[:, 3] = 2 * margins + noise * features[:, 3] + rng.normal()  # and an offset of the query's own
            layers[layer] = features.astype(np.float16)
        seen.append(Seen(layers, margins))
    fit = fit_cascade(seen, 8, top_k=10)
    assert abs(fit.correlation[1]) < 0.3
    assert 0.9 < fit.correlation[2] < fit.correlation[3]
    assert 2 in fit.cascade.layers  # where most of the work can be saved
    fast, faster = fit.levels["fast"], fit.levels["faster"]
    assert fast.lost <= LEVELS["fast"] + 0.01
    assert faster.lost <= LEVELS["faster"] + 0.01
    assert faster.cost <= fast.cost < 0.6
    assert fit.cascade.tolerances["fast"] == fast.tolerances
    alone = fit_cascade([Seen({2: one.features[2]}, one.margins) for one in seen], 8).levels["fast"]
    assert alone.cost == pytest.approx(2 / 8 + alone.finished * (1 - 2 / 8))
    with pytest.raises(ValueError, match="10 queries"):
        fit_cascade(seen[:5], 8)


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Ctrl-C once so many queries are collected; the list grows by one for each."""
    from prorank.early_exit import fit as fitting

    collected: list[object] = []
    whole = fitting.collect

    def collect(*args: Any) -> Seen:
        if len(collected) == count:
            raise KeyboardInterrupt
        collected.append(args)
        return whole(*args)

    monkeypatch.setattr(fitting, "collect", collect)
    return collected


def test_command_fits_goes_on_and_rank_uses_it(
    base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    plain = make_tiny(tmp_path / "plain", "llama", tokenizer, layers=3)
    Reranker.from_pretrained(plain, dtype="float32", max_length=160).save(tmp_path / "model")
    lists = tmp_path / "lists.jsonl"
    texts = documents()[:12]
    lines = [{"query": f"{text} {i}", "documents": texts, "labels": [1] + [0] * 11} for i, text in enumerate(texts)]
    lists.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    fit = ["cascade", "--model", str(tmp_path / "model"), "--data", str(lists), "--first-stage", "given"]
    fit += ["--layers", "1", "--top", "3", "--candidates", "11", "--dtype", "float32", "--out", str(tmp_path / "out")]
    interrupt_after(4, monkeypatch)
    assert main(fit) == 130
    assert len(list((tmp_path / "out.collected").iterdir())) == 4
    monkeypatch.undo()
    collected = interrupt_after(10**9, monkeypatch)
    assert main(fit) == 0
    assert len(collected) == 8  # of twelve queries; the others were collected before
    assert not (tmp_path / "out.collected").exists()
    assert main([*fit[:-1], str(tmp_path / "at-once")]) == 0
    assert (tmp_path / "at-once" / FILE).read_bytes() == (tmp_path / "out" / FILE).read_bytes()
    assert "layer  1 of 3" in capsys.readouterr().out
    assert (tmp_path / "out" / FILE).is_file()
    plain_one, fitted = (Reranker.from_pretrained(tmp_path / name, dtype="float32") for name in ("model", "out"))
    assert fitted.fingerprint == plain_one.fingerprint  # exact scores do not depend on read-outs
    described = [RerankerSystem(fitted, cascade=level).describe() for level in ("exact", "fast")]
    assert described[0] == RerankerSystem(plain_one).describe() | {"model": fitted.name}
    assert described[1]["cascade_sha256"] == fitted.cascade.sha256
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
