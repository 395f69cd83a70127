"""Measures: equal to pytrec_eval on untied runs, and hand-derived where conventions differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorank.evaluate.metrics import count_ties, measure, parse_measures, ranked

ir_measures = pytest.importorskip("ir_measures")
NAMES = ("nDCG@10", "nDCG@5", "RR@10", "AP", "R@100", "P@10", "P@3", "Judged@10")


def random_case(seed, queries=7, documents=60):
    rng = np.random.default_rng(seed)
    qrels, run = {}, {}
    for q in range(queries):
        qrels[f"q{q}"] = {f"d{d}": int(rng.integers(0, 4)) for d in rng.choice(documents, 15, replace=False)}
        scores = rng.permutation(documents)[: rng.integers(1, documents)]
        run[f"q{q}"] = {f"d{d}": float(s) for d, s in enumerate(scores)}
    return qrels, {q: dict(sorted(ds.items(), key=lambda x: -x[1])) for q, ds in run.items()}


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_ir_measures_on_untied_runs(seed):
    qrels, run = random_case(seed)
    ours = measure(run, qrels, NAMES)
    theirs = list(ir_measures.iter_calc([ir_measures.parse_measure(n) for n in NAMES], qrels, run))
    assert len(theirs) == len(NAMES) * len(qrels)
    for row in theirs:
        assert ours.values[str(row.measure)][row.query_id] == pytest.approx(row.value, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pytrec_eval_on_untied_runs(seed):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels, run = random_case(seed + 100)
    ours = measure(run, qrels, ("nDCG@10", "AP", "R@100", "P@10"))
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map", "recall.100", "P.10"}).evaluate(run)
    pairs = {"nDCG@10": "ndcg_cut_10", "AP": "map", "R@100": "recall_100", "P@10": "P_10"}
    for query_id, values in theirs.items():
        for name, key in pairs.items():
            assert ours.values[name][query_id] == pytest.approx(values[key], abs=1e-9)


def test_ndcg_of_graded_relevance_by_hand():
    """Gains 0, 2, 1 at ranks 1, 2, 3; ideal 2, 1. nDCG@10 = (2/log2(3) + 1/2) / (2 + 1/log2(3)) with linear gains."""
    run = {"q": {"x": 3.0, "a": 2.0, "b": 1.0}}
    expected = (2 / math.log2(3) + 1 / 2) / (2 + 1 / math.log2(3))
    assert measure(run, {"q": {"a": 2, "b": 1}}, ["nDCG@10"]).mean("nDCG@10") == pytest.approx(expected, abs=1e-12)


def test_ties_go_to_the_first_stage_and_not_to_the_document_id():
    """All margins equal: the candidates' order stands. trec_eval alone would put z first (ids descending)."""
    run = {"q": ranked(["a", "z"], [0.5, 0.5])}
    assert list(run["q"]) == ["a", "z"]
    assert measure(run, {"q": {"a": 1}}, ["RR@10"]).mean("RR@10") == 1.0
    assert measure({"q": ranked(["z", "a"], [0.5, 0.5])}, {"q": {"a": 1}}, ["RR@10"]).mean("RR@10") == 0.5


def test_a_missing_query_and_an_empty_list_count_0():
    measured = measure({"q1": {"a": 1.0}, "q3": {}, "other": {"a": 1.0}}, {q: {"a": 1} for q in ("q1", "q2", "q3")})
    assert measured.mean("nDCG@10") == pytest.approx(1 / 3)
    assert measured.mean("Judged@10") == pytest.approx(1 / 3)  # one judged document of a list of one
    assert measured.missing == ("q2", "q3")
    assert measured.unjudged == ("other",)
    assert measure({}, {"q": {"a": 1}}).mean("AP") == 0.0


def test_a_query_without_relevant_documents_counts_0():
    measured = measure({"q": {"a": 1.0}, "p": {"b": 1.0}}, {"q": {"a": 0}, "p": {"b": 1}}, ["nDCG@10", "AP", "R@100"])
    assert [measured.mean(name) for name in measured.values] == [0.5, 0.5, 0.5]


def test_min_relevance_moves_binary_measures_only():
    run, qrels = {"q": {"a": 2.0, "b": 1.0}}, {"q": {"a": 1, "b": 2}}
    low, high = measure(run, qrels), measure(run, qrels, min_relevance=2)
    assert (low.mean("RR@10"), high.mean("RR@10")) == (1.0, 0.5)
    assert low.mean("nDCG@10") == high.mean("nDCG@10")
    assert measure(run, qrels, ["RR(rel=1)@10"], min_relevance=2).mean("RR(rel=1)@10") == 1.0


def test_wrong_measures_are_named():
    with pytest.raises(ValueError, match="'nDGC@10' is not a measure"):
        parse_measures(["nDGC@10"])
    with pytest.raises(ValueError, match="comes twice"):
        parse_measures(["AP", "AP"])
    with pytest.raises(ValueError, match="at least one"):
        parse_measures([])
    with pytest.raises(ValueError, match="no judgments"):
        measure({"q": {"a": 1.0}}, {})


def test_count_ties():
    assert count_ties([1.0, 2.0, 1.0, 1.0]) == 2
    assert count_ties([]) == 0
    assert count_ties(np.array([1.0, 1.0 + 1e-9])) == 1  # equal in float32, the only precision ranked by


def test_ranked_wants_one_margin_a_document():
    with pytest.raises(ValueError, match="expected one for each of 2 documents"):
        ranked(["a", "b"], [1.0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_properties(relevances, random):
    """In [0, 1]; 1 for the ideal order; the order of documents below the cut does not matter; ids do not matter."""
    doc_ids = [f"d{i}" for i in range(len(relevances))]
    qrels = {"q": dict(zip(doc_ids, relevances, strict=True))}
    shuffled = random.sample(doc_ids, len(doc_ids))
    run = {"q": dict.fromkeys(shuffled, 0.0)}
    values = measure(run, qrels, ["nDCG@5", "AP", "RR@10", "R@100"])
    assert all(0 <= values.mean(name) <= 1 + 1e-12 for name in values.values)
    ideal = sorted(doc_ids, key=lambda d: -qrels["q"][d])
    best = measure({"q": dict.fromkeys(ideal, 0.0)}, qrels, ["nDCG@5"]).mean("nDCG@5")
    assert best == pytest.approx(1.0 if any(relevances) else 0.0)
    tail = shuffled[:5] + shuffled[5:][::-1]
    assert measure({"q": dict.fromkeys(tail, 0.0)}, qrels, ["nDCG@5"]).mean("nDCG@5") == values.mean("nDCG@5")
    renamed = measure(
        {"q": {"x" + d[::-1]: 0.0 for d in shuffled}},
        {"q": {"x" + d[::-1]: r for d, r in qrels["q"].items()}},
        ["nDCG@5"],
    )
    assert renamed.mean("nDCG@5") == pytest.approx(values.mean("nDCG@5"))
