"""Platt's fit against scikit-learn's logistic regression, and the command that writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prorank import Reranker
from prorank.cli.main import main
from prorank.evaluate.calibration import fit_probability, prior_weights
from prorank.evaluate.expressiveness import expected_calibration_error, reliability_bins
from testkit.tiny_models import make_tiny


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.2, -3.0), (4.0, 1.5)])
def test_fit_equals_logistic_regression_on_plenty_of_data(slope: float, intercept: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    margins = rng.normal(0.5, 3.0, 20_000)
    relevant = rng.random(20_000) < 1 / (1 + np.exp(-(slope * margins + intercept)))
    theirs = linear_model.LogisticRegression(C=1e9).fit(margins[:, None], relevant)
    found = fit_probability(margins, relevant)
    # Platt's targets pull by one pseudo-count a class: little in 20,000.
    assert found == pytest.approx((theirs.coef_[0, 0], theirs.intercept_[0]), rel=0.03, abs=0.03)
    assert found == pytest.approx((slope, intercept), rel=0.15, abs=0.15)


def test_separable_data_have_a_finite_fit() -> None:
    slope, intercept = fit_probability([-3.0, -2.0, 2.0, 3.0], [0, 0, 1, 1])
    assert 0 < slope < 100
    assert intercept == pytest.approx(0.0, abs=1e-3)


def test_fit_at_even_odds_equals_balanced_logistic_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    relevant = rng.random(20_000) < 0.05
    margins = rng.normal(np.where(relevant, 1.0, -1.0), 1.0)
    theirs = linear_model.LogisticRegression(C=1e9, class_weight="balanced").fit(margins[:, None], relevant)
    found = fit_probability(margins, relevant, prior=0.5)
    assert found == pytest.approx((theirs.coef_[0, 0], theirs.intercept_[0]), abs=0.03)
    # Two normal classes of variance 1 at -1 and 1: the log odds of a margin at even odds are 2 * margin.
    assert found == pytest.approx((2.0, 0.0), abs=0.15)
    assert fit_probability(margins, relevant)[1] == pytest.approx(np.log(0.05 / 0.95), abs=0.3)
    p = 1 / (1 + np.exp(-(found[0] * margins + found[1])))
    weights = prior_weights(relevant, 0.5)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[relevant].sum() == pytest.approx(len(margins) / 2)
    assert expected_calibration_error(reliability_bins(p, relevant, weights=weights)) < 0.02
    assert expected_calibration_error(reliability_bins(p, relevant)) > 0.1


def test_data_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="0 others"):
        fit_probability([1.0, 2.0], [1, 1])
    with pytest.raises(ValueError, match="lower margins"):
        fit_probability([3.0, 2.0, -2.0, -3.0], [0, 0, 1, 1])


def test_command_writes_the_checkpoint(base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoTokenizer

    plain = make_tiny(tmp_path / "plain", "llama", AutoTokenizer.from_pretrained(base_folder))
    folder = Reranker.from_pretrained(plain, dtype="float32", max_length=160).save(tmp_path / "model")
    reranker = Reranker.from_pretrained(folder, dtype="float32")
    words = "germ cell vaccine bread market antibody".split()  # noqa: SIM905
    rng = np.random.default_rng(0)
    lines = []
    for number in range(16):
        query, texts = f"question {number}", [" ".join(rng.choice(words, 5)) for _ in range(6)]
        margins = reranker.margins(query, texts)
        labels = [int(m >= np.sort(margins)[-2]) for m in margins]  # the best two are relevant: a fit exists
        lines.append({"query": query, "documents": texts, "labels": labels})
    data = tmp_path / "lists.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    command = ["calibrate", "--model", str(folder), "--data", str(data), "--first-stage", "given", "--dtype", "float32"]
    assert main([*command, "--dry-run"]) == 0
    assert json.loads((folder / "prorank.json").read_text("utf-8"))["calibration"] is None
    assert main(command) == 0
    assert "fitted" in capsys.readouterr().out
    slope, intercept = json.loads((folder / "prorank.json").read_text("utf-8"))["calibration"]
    again = Reranker.from_pretrained(folder, dtype="float32")
    assert again.calibration == pytest.approx((slope, intercept))
    assert main([*command, "--prior", "0.5"]) == 0
    manifest = json.loads((folder / "prorank.json").read_text("utf-8"))
    assert manifest["calibration_prior"] == 0.5
    assert manifest["calibration"][1] > intercept  # a third of the candidates are relevant
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--prior", "1"])
    assert "--prior: expected a number above 0 and below 1" in capsys.readouterr().err
    assert main(["calibrate", "--data", str(data)]) == 2
    assert "--dry-run" in capsys.readouterr().err
