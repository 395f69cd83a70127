"""The analysis: every measure against a hand-derived value, and the whole against plain transformers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorank.data.collection import Collection
from prorank.evaluate import expressiveness as ex
from prorank.evaluate import understanding as un
from prorank.evaluate.analyze import analyze, draw_sample
from prorank.evaluate.analyze_report import definitions, write_analysis
from prorank.evaluate.greedy import greedy_answers
from prorank.evaluate.record import make_record
from prorank.scoring import Capabilities
from prorank.types import Document, EncodedGroup, Query


def prompt(relevant, answer, margin=0.0, text=""):
    return un.Prompted(relevant, answer, text, margin, 0.5)


PROMPTS = [
    prompt(True, 1, 2.0),
    prompt(True, None, 1.0, "The passage"),
    prompt(True, 0, -1.0),
    prompt(False, 0, -2.0),
    prompt(False, None, 1.0, "The passage"),
    prompt(False, None, 0.0, "A"),
]


def test_understanding_by_hand():
    """3 of 6 in form; 2 right; relevant 1/3 and irrelevant 1/3 right; "1" is 1 of 3 formed.

    AUC: 2.0 beats 3 negatives; 1.0 beats 2 and ties 1; -1.0 beats 1: (3 + 2.5 + 1) / 9.
    """
    assert un.format_success(PROMPTS) == 0.5
    assert un.accuracy(PROMPTS) == pytest.approx(1 / 3)
    assert un.balanced_accuracy(PROMPTS) == pytest.approx(1 / 3)
    assert un.positive_share(PROMPTS) == pytest.approx(1 / 3)
    assert un.margin_auc(PROMPTS) == pytest.approx(6.5 / 9)
    assert un.mean_mass(PROMPTS) == 0.5
    assert un.frequent_malformed(PROMPTS) == [("The passage", 2), ("A", 1)]
    assert un.frequent_malformed(PROMPTS, 1) == [("The passage", 2)]


def test_one_answer_only_gives_half():
    collapsed = [prompt(relevant, 1) for relevant in (True, False, False, False)]
    assert un.balanced_accuracy(collapsed) == 0.5
    assert un.positive_share(collapsed) == 1.0


def test_label_mass_by_hand():
    """softmax of (log 1, log 2, log 5): 1/8, 2/8, 5/8."""
    assert un.label_mass(np.log([1.0, 2.0, 5.0]), (0, 1)) == pytest.approx(3 / 8)
    assert un.label_mass([1000.0, 0.0, 1000.0], (0, 1)) == pytest.approx(0.5)


def test_prompted_reads_ids_as_the_warmup_does():
    logits = np.zeros(10, dtype=np.float32)
    logits[3] = 1.5
    found = un.Prompted.of(True, [3, 9], "1<end>", logits, (2, 3), 9)
    assert (found.answer, found.margin) == (1, 1.5)
    assert un.Prompted.of(True, [3, 3], "11", logits, (2, 3), 9).answer is None


def test_auc_equals_its_definition():
    rng = np.random.default_rng(0)
    for _ in range(5):
        above, below = rng.integers(0, 8, 17), rng.integers(0, 6, 23)
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in above for b in below]
        assert un.auc(above, below) == pytest.approx(np.mean(pairs))
    assert un.auc([], [1.0]) == 0.5


def test_intervals_hold_the_value_and_are_the_same_each_time():
    found = un.understanding(PROMPTS * 5, resamples=200)
    assert all(low <= value <= high for value, low, high in found.values())
    assert found == un.understanding(PROMPTS * 5, resamples=200)
    assert un.understanding([])["accuracy"] == (0.0, 0.0, 0.0)


def f32(*values):
    return np.array(values, dtype=np.float32)


def test_distinct_and_tied_by_hand():
    """Query a: 2 distinct of 4; tied pairs 3 of 6. Query b: all distinct."""
    scores = {"a": f32(1, 1, 1, 2), "b": f32(1, 2)}
    assert ex.distinct_share(scores) == pytest.approx((0.5 + 1) / 2)
    assert ex.tie_rate(scores) == pytest.approx((0.5 + 0) / 2)


def test_score_entropy_by_hand():
    assert ex.score_entropy([0.01, 0.02, 0.99, 0.98]) == pytest.approx(1.0)  # two bins, half each: one bit
    assert ex.score_entropy((np.arange(20) + 0.5) / 20) == pytest.approx(math.log2(20))
    assert ex.score_entropy([0.5] * 9) == 0.0
    assert ex.score_entropy([]) == 0.0


def test_spread_and_within_share_by_hand():
    """Within each query 0 and 2: deviation 1. Means 1 and 11: total variance 1 + 25."""
    scores = {"a": f32(0, 2), "b": f32(10, 12)}
    assert ex.spread(scores) == 1.0
    assert ex.within_share(scores) == pytest.approx(1 / 26)
    assert ex.within_share({"a": f32(0, 2), "b": f32(2, 0)}) == pytest.approx(1.0)
    assert ex.within_share({"a": f32(3, 3)}) == 0.0


def test_d_prime_by_hand():
    """Means 4 and 1, variances 1 and 1: d' = 3."""
    assert ex.d_prime([3, 5], [0, 2]) == pytest.approx(3.0)
    assert ex.d_prime([], [1]) == ex.d_prime([2], [1]) == 0.0


def test_query_auc_leaves_out_queries_of_one_kind():
    scores = {"a": f32(3, 1), "b": f32(1, 2), "c": f32(1, 2)}
    relevant = {"a": np.array([True, False]), "b": np.array([True, False]), "c": np.array([False, False])}
    assert ex.query_auc(scores, relevant) == 0.5


def test_calibration_by_hand():
    """Bin 0.1: given .15, seen 0 (2 pairs). Bin 0.9: given .95, seen .5 (2 pairs). ECE = .5*.15 + .5*.45."""
    bins = ex.reliability_bins([0.1, 0.2 - 1e-9, 0.9, 1.0], [False, False, True, False])
    assert [(round(b.given, 3), b.observed, b.pairs) for b in bins] == [(0.15, 0.0, 2), (0.95, 0.5, 2)]
    assert ex.expected_calibration_error(bins) == pytest.approx(0.3)
    assert ex.expected_calibration_error([]) == 0.0


def test_effective_rank_by_hand():
    """Centred states along one axis: 1. Along k axes with equal singular values: k."""
    assert ex.effective_rank([[1.0, 0], [2, 0], [9, 0]]) == pytest.approx(1.0)
    cross = np.concatenate([np.eye(3), -np.eye(3)])
    assert ex.effective_rank(cross) == pytest.approx(3.0)
    assert ex.effective_rank(cross + 100) == pytest.approx(3.0)  # an offset is no information
    assert ex.effective_rank(np.ones((4, 2))) == ex.effective_rank([[1.0, 2.0]]) == 0.0


def test_mean_cosine_by_hand():
    assert ex.mean_cosine([[1.0, 0], [0, 2]]) == pytest.approx(0.0)
    assert ex.mean_cosine([[1.0, 1], [2, 2], [5, 5]]) == pytest.approx(1.0)
    assert ex.mean_cosine([[1.0, 0], [-3, 0]]) == pytest.approx(-1.0)
    assert ex.mean_cosine([[1.0, 0]]) == 0.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=20))
def test_bounds(values):
    scores = {"q": np.array(values, dtype=np.float32)}
    assert 0 < ex.distinct_share(scores) <= 1
    assert 0 <= ex.tie_rate(scores) <= 1
    assert (ex.tie_rate(scores) == 0) == (ex.distinct_share(scores) == 1)
    assert ex.within_share(scores) == pytest.approx(1.0) or ex.spread(scores) == 0.0
    states = np.outer(scores["q"], [1.0, 2.0]) + np.eye(len(values), 2)
    assert 0 <= ex.effective_rank(states) <= min(len(values) - 1, 2) + 1e-9
    assert -1 - 1e-9 <= ex.mean_cosine(states) <= 1 + 1e-9


COLLECTION = Collection(
    "toy",
    {f"d{i}": Document(f"d{i}", f"passage about topic {i % 7} and more {i}") for i in range(30)},
    {f"q{i}": Query(f"q{i}", f"what of topic {i}") for i in range(5)},
    {f"q{i}": {f"d{i}": 1, f"d{i + 7}": 2, f"d{i + 1}": 0} for i in range(5)},
    "test",
)
CANDIDATES = {f"q{i}": {f"d{(i + j) % 30}": float(-j) for j in range(12)} for i in range(4)}


def test_the_draw_is_balanced_judged_and_repeatable():
    sample = draw_sample(COLLECTION, CANDIDATES, pairs=10, queries=3, top_k=6)
    assert len(sample.pairs) == 10
    for positive, negative in zip(sample.pairs[::2], sample.pairs[1::2], strict=True):
        assert positive.query_id == negative.query_id
        assert COLLECTION.qrels[positive.query_id][positive.doc_id] >= 1
        assert COLLECTION.qrels[negative.query_id].get(negative.doc_id, 0) == 0
        assert negative.doc_id in CANDIDATES[negative.query_id]
    assert len({pair.query_id for pair in sample.pairs[:8]}) == 4  # every query once before one comes again
    assert len(set(sample.pairs)) == 10
    assert [len(listed) for listed in sample.lists.values()] == [6, 6, 6]
    assert sample == draw_sample(COLLECTION, CANDIDATES, pairs=10, queries=3, top_k=6)
    assert sample != draw_sample(COLLECTION, CANDIDATES, pairs=10, queries=3, top_k=6, seed=1)
    easy = draw_sample(COLLECTION, CANDIDATES, pairs=10, negatives="random")
    assert len(easy.pairs) == 10
    with pytest.raises(ValueError, match="no query of toy has both"):
        draw_sample(COLLECTION, {})
    with pytest.raises(ValueError, match="at least 2, 1 and 2"):
        draw_sample(COLLECTION, CANDIDATES, pairs=1)
    with pytest.raises(ValueError, match="first-stage or random"):
        draw_sample(COLLECTION, CANDIDATES, negatives="hard")


@pytest.fixture(scope="module")
def tiny(tiny_llama_dir):
    from prorank.reranker import Reranker

    return Reranker.from_pretrained(str(tiny_llama_dir), dtype="float32", device="cpu")


def test_greedy_answers_equal_plain_generation(tiny):
    import torch

    group = tiny.encode("a query", ["one passage", "a longer passage with more words"]).group
    answers = greedy_answers(tiny, group)
    for row, answer in enumerate(answers):
        ids = [*group.prefix_ids, *group.own_ids[row]]
        for place, found in enumerate(answer.completion_ids):
            with torch.inference_mode():
                logits = tiny.backend.model(input_ids=torch.tensor([ids])).logits[0, -1]
            assert found == int(logits.argmax())
            if place == 0:
                assert answer.logits == pytest.approx(logits.numpy(), abs=1e-4)
            ids.append(found)
        assert len(answer.completion_ids) == 4 or answer.completion_ids[-1] == tiny.encoder.end_id


def test_greedy_answers_without_a_model_take_the_backends_logits(tiny):
    class Bare:
        name = "bare"
        capabilities = Capabilities(answers=True)

        def __init__(self, script):
            self.script, self.calls = script, []

        def last_logits(self, group):
            self.calls.append(group)
            logits = np.zeros((len(group.own_ids), 50), dtype=np.float32)
            for row, own in enumerate(group.own_ids):
                generated = len(own) - 2
                logits[row, self.script[generated]] = 1.0
            return logits

    class Stub:
        encoder = tiny.encoder

    for script, expected in (
        ([3, tiny.encoder.end_id, 7, 7], (3, tiny.encoder.end_id)),
        ([tiny.encoder.end_id], (tiny.encoder.end_id,)),
        ([3, 4, 5, 6, 7], (3, 4, 5, 6)),
    ):
        stub = Stub()
        stub.backend = Bare(script)
        (answer,) = greedy_answers(stub, EncodedGroup([], [[8, 9]]))
        assert answer.completion_ids == expected


def test_the_whole_analysis_of_a_tiny_model(tiny, tmp_path):
    sample = draw_sample(COLLECTION, CANDIDATES, pairs=6, queries=3, top_k=5)
    done = []
    found = analyze(tiny, COLLECTION, sample, on_done=done.append)
    assert sum(done) == 6 + 15
    assert len(found.prompts) == 6
    pair = sample.pairs[0]
    texts = COLLECTION.queries[pair.query_id].text, COLLECTION.documents[pair.doc_id].content
    assert found.prompts[0].margin == pytest.approx(float(tiny.score([texts])[0]), abs=1e-4)
    assert {"effective_rank", "mean_cosine", "d_prime", "query_auc"} <= set(found.expressiveness)
    assert 1 <= found.expressiveness["effective_rank"] <= 5
    record = make_record("analyze", {**found.payload(), "sample": {"pairs": 6}})
    json.dumps(record)
    write_analysis("Analysis", [found, found], record, tmp_path / "out")
    text = (tmp_path / "out/analysis.md").read_text()
    assert "format_success" in text
    assert (tmp_path / "out/analysis.html").read_text().count("<svg") == 6


def test_a_backend_without_logits_is_refused(fake_reranker):
    sample = draw_sample(COLLECTION, CANDIDATES, pairs=2, queries=1)
    with pytest.raises(ValueError, match="full-vocabulary logits, which backend fake does not compute"):
        analyze(fake_reranker, COLLECTION, sample)


def test_every_measure_has_a_definition():
    assert all(len(text) > 20 and text.endswith(".") for text in definitions().values())
    assert {"format_success", "accuracy", "effective_rank"} <= set(definitions())
