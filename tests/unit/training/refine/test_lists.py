"""Lists of stage 2: what is drawn, from where, and that a draw depends on its number alone."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prorank.data.collection import Collection
from prorank.data.overlap import find_overlap, without
from prorank.data.pseudo import pseudo_queries
from prorank.training.held_out import is_held_out
from prorank.training.refine import losses
from prorank.training.refine.config import LABEL_LOSSES, TEACHER_LOSSES
from prorank.training.refine.lists import ListSource, Mixture
from prorank.training.refine.loop import hard_at
from prorank.training.warmup.prompts import PromptSampler
from prorank.types import Document, Query
from testkit.refine import candidates, refine_config, source
from testkit.warmup import collection
from testkit.warmup import config as warmup_config


def test_settings_name_every_loss():
    assert set(losses.LOSSES) == {*LABEL_LOSSES, *TEACHER_LOSSES}


@given(st.integers(0, 500), st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_a_draw_is_a_function_of_its_number(number, hard):
    one, other = source(refine_config()), source(refine_config())
    other.draw(3, 1)
    item = one.draw(number, hard)
    assert item == other.draw(number, hard)
    assert len(item.documents) == 5
    assert item.relevance is not None
    assert item.relevance[0] == 1.0
    assert not any(item.relevance[1:])
    assert not is_held_out(item.query_id, 0.2)
    assert item.teacher is not None


def test_every_list_once_an_epoch():
    lists = source(refine_config())
    drawn = [lists.draw(n, 0).query_id for n in range(lists.size)]
    assert len(set(drawn)) == lists.size == lists.train_queries


def test_an_epoch_is_shuffled_once_not_at_every_draw(monkeypatch):
    """And comes in the order that its seed gives."""
    lists, prompts = source(refine_config()), PromptSampler(collection(), warmup_config())
    shuffles, real = [], random.Random.shuffle

    def shuffle(self, items):
        shuffles.append(len(items))
        real(self, items)

    monkeypatch.setattr(random.Random, "shuffle", shuffle)
    drawn = [lists.draw(n, 0).query_id for n in range(2 * lists.size)]
    for n in range(2 * len(prompts.train_ids)):
        prompts.draw(n, hard=False)
    assert len(shuffles) <= 4  # two epochs of each
    expected = []
    for epoch in range(2):
        order = list(range(lists.size))
        real(random.Random(f"0:toy:epoch:{epoch}"), order)
        expected += [lists._epoch[i][0] for i in order]
    assert drawn == expected


def test_hard_rivals_come_from_the_window():
    config = refine_config(hard_rank_from=3, hard_rank_to=6, list_size=4)
    lists, listed, texts = source(config), candidates(), collection().documents
    for number in range(30):
        item = lists.draw(number, 3)
        window = {texts[d].content for d in list(listed[item.query_id])[2:6]}
        assert sum(text in window for text in item.documents[1:]) >= 3 - (item.documents[0] in window)


def test_grades_count_from_the_threshold():
    graded = Collection(
        "graded",
        {f"d{i}": Document(f"d{i}", f"text {i}") for i in range(12)},
        {f"q{i}": Query(f"q{i}", f"query {i}") for i in range(20)},
        {f"q{i}": {"d0": 3, "d1": 2, "d2": 1} for i in range(20)},
    )
    listed = {f"q{i}": {f"d{j}": 12.0 - j for j in range(12)} for i in range(20)}
    lists = ListSource(graded, refine_config(relevance_threshold=2, list_size=4, hard_negatives=3), candidates=listed)
    value = {f"text {i}": float(max(0, r - 1)) for i, r in enumerate([3, 2, 1] + [0] * 9)}
    seen = Counter()
    for number in range(2 * lists.size):
        item = lists.draw(number, 3)
        assert item.relevance == tuple(value[text] for text in item.documents)
        assert item.relevance[0] == max(item.relevance)  # no rival is as relevant
        seen[item.documents[0]] += 1
    assert seen == {"text 0": lists.size, "text 1": lists.size}


def test_false_negatives_are_left_out():
    config = refine_config(false_negative_margin=0.0, teacher_normalise=False, hard_negatives=4)
    teacher = {q: {d: float(d == "d33") for d in [*listed, "d33"]} for q, listed in candidates().items()}
    listed = {q: {"d33": 20.0, **scores} for q, scores in candidates().items()}
    lists = source(
        config, candidates=listed, teacher={q: {**s, f"d{int(q[1:]) % 10}": 0.5} for q, s in teacher.items()}
    )
    for query_id in listed:
        if query_id in lists._grades:
            assert "d33" not in lists._window(query_id, f"d{int(query_id[1:]) % 10}")


def test_unlabelled_queries_need_a_teacher():
    bare = Collection("bare", collection().documents, collection().queries)
    with pytest.raises(ValueError, match="no teacher scores"):
        ListSource(bare, refine_config(), candidates=candidates())
    item = ListSource(bare, refine_config(), candidates=candidates(), teacher=candidates(1)).draw(0, 4)
    assert item.relevance is None
    assert item.teacher is not None
    assert len(item.documents) == 5


def unjudged() -> Collection:
    """The toy queries without judgments, over documents whose text is their id."""
    return replace(collection(), documents={d: Document(d, d) for d in collection().documents}, qrels={})


def test_the_teachers_best_may_count_as_relevant():
    lists = ListSource(unjudged(), refine_config(), candidates=candidates(), teacher=candidates(1), teacher_positives=2)
    assert lists.labelled
    seen: dict[str, set[str]] = {}
    for number in range(lists.size):
        item = lists.draw(number, 2)
        assert item.relevance is not None
        best = list(candidates(1)[item.query_id])[:2]
        assert item.relevance == tuple(1.0 if d in best else 0.0 for d in item.documents)
        seen.setdefault(item.query_id, set()).add(item.documents[0])
    assert all(first == set(list(candidates(1)[q])[:2]) for q, first in seen.items())
    assert not ListSource(unjudged(), refine_config(), candidates=candidates(), teacher=candidates(1)).labelled


def test_queries_judged_without_a_relevant_document_learn_from_the_teacher():
    judged = replace(collection(), qrels={q: dict.fromkeys(docs, 0) for q, docs in collection().qrels.items()})
    item = ListSource(judged, refine_config(), candidates=candidates(), teacher=candidates(1)).draw(0, 2)
    assert item.relevance is None
    assert item.teacher is not None


def test_quantiles_span_the_teachers_scores():
    """Twelve candidates in four parts of three: one document out of each, whatever the draw."""
    config = refine_config(rivals="quantiles", list_size=4, hard_negatives=3, hard_rank_to=12)
    listed = candidates(1)
    lists = ListSource(unjudged(), config, candidates=listed, teacher=listed)
    drawn = Counter()
    for number in range(60):
        item = lists.draw(number, 4)
        ranks = [list(listed[item.query_id]).index(text) for text in item.documents]
        assert [rank // 3 for rank in ranks] == [0, 1, 2, 3]
        drawn.update(ranks)
    assert len(drawn) == 12


def test_suspected_false_negatives_stay_for_the_teacher_alone():
    """p is relevant, j judged irrelevant; the teacher sets j and a above p, and b 1 below it."""
    scores = {"j": 3.0, "a": 2.5, "p": 2.0, "b": 1.0, "c": 0.0}
    documents = {d: Document(d, d) for d in (*scores, "x", "y")}
    queries = {f"q{i}": Query(f"q{i}", "query") for i in range(9)}
    judged = Collection("judged", documents, queries, {q: {"p": 1, "j": 0} for q in queries})
    run = dict.fromkeys(queries, scores)

    def drawn(**changes):
        config = refine_config(teacher_normalise=False, hard_negatives=4, **changes)
        item = ListSource(judged, config, candidates=run, teacher=run).draw(0, 4)
        return dict(zip(item.documents, item.relevance, strict=True)), item.teacher

    relevance, teacher = drawn(false_negative_margin=0.0, false_negatives="unlabel")
    assert {d for d, r in relevance.items() if math.isnan(r)} == {"a"}
    assert relevance["p"] == 1.0
    assert sorted(teacher) == sorted(scores.values())
    relevance, _ = drawn(false_negative_margin=1.5, false_negatives="unlabel")
    assert {d for d, r in relevance.items() if math.isnan(r)} == {"a", "b"}
    relevance, _ = drawn(false_negative_margin=0.0)
    assert set(relevance) >= {"p", "j", "b", "c"}
    assert "a" not in relevance


def test_cap():
    many = Collection(
        "many", collection().documents, collection().queries, {q: {"d1": 1, "d2": 1} for q in collection().queries}
    )
    free, capped = (ListSource(many, refine_config(), cap=cap) for cap in (None, 1))
    assert free.size == 2 * capped.size


def test_positives_from_the_candidates():
    """Of three relevant documents of a query, at candidate ranks 1, 4 and nowhere, only those down to the rank come."""
    judged = Collection(
        "judged",
        {f"d{i}": Document(f"d{i}", f"text {i}") for i in range(30)},
        {f"q{i}": Query(f"q{i}", f"query {i}") for i in range(20)},
        {f"q{i}": {"d0": 1, "d3": 1, "d20": 1} for i in range(20)},
    )
    listed = {f"q{i}": {f"d{j}": 10.0 - j for j in range(10)} for i in range(20)}
    for rank, expected in ((0, {"text 0", "text 3", "text 20"}), (4, {"text 0", "text 3"}), (3, {"text 0"})):
        lists = ListSource(judged, refine_config(positive_rank_to=rank), candidates=listed)
        drawn = [lists.draw(number, 2) for number in range(lists.size)]
        assert {item.documents[0] for item in drawn} == expected
        assert lists.size == len(expected) * lists.train_queries
        assert all("text 20" not in item.documents[1:] for item in drawn)  # relevant, so no random rival either
    with pytest.raises(ValueError, match="positive_rank_to: judged has no relevant document"):
        ListSource(judged, refine_config(positive_rank_to=5), candidates={"q0": {"d9": 1.0}})
    assert refine_config(hard_rank_to=7, positive_rank_to=9).depth == 9


def test_mixture_follows_weights_and_sizes():
    config = refine_config(steps=500, queries_per_step=4, mixture_alpha=1.0)
    small = Collection(
        "small", collection().documents, dict(list(collection().queries.items())[:30]), collection().qrels
    )
    sources = [source(config), ListSource(small, config, weight=3.0)]
    mixture = Mixture(sources, config)
    expected = sources[0].size / (sources[0].size + 3 * sources[1].size)
    assert mixture.shares[0] == pytest.approx(expected)
    drawn = Counter(mixture.draw(n, 0).dataset for n in range(2000))
    assert drawn["toy"] / 2000 == pytest.approx(expected, abs=0.05)
    alone = [sources[0].draw(n, 0) for n in range(drawn["toy"])]
    assert [item for n in range(2000) if (item := mixture.draw(n, 0)).dataset == "toy"] == alone


def test_hard_rivals_grow():
    config = refine_config(steps=100, hard_negatives=4, hard_ramp=0.5)
    assert [hard_at(step, config) for step in (1, 13, 26, 51, 100)] == [0, 1, 2, 4, 4]
    assert hard_at(1, refine_config(hard_ramp=0.0)) == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"list_size": 1}, "list_size"),
        ({"hard_negatives": 5}, "hard_negatives"),
        ({"losses": ("hinge=1",)}, "losses"),
        ({"losses": ("softmax=much",)}, "losses"),
        ({"losses": ("softmax=0",)}, "losses"),
        ({"temperature": 0.0}, "temperature"),
        ({"hard_rank_from": 9, "hard_rank_to": 3}, "hard_rank_to"),
        ({"lora_rank": 0}, "lora_rank"),
    ],
)
def test_bad_settings_are_named(changes, field):
    with pytest.raises(ValueError, match=field):
        refine_config(**changes)


def test_overlap_is_found_and_dropped():
    training = Collection(
        "a",
        {"1": Document("1", "The Cat sat."), "2": Document("2", "dog"), "3": Document("3", "")},
        {"x": Query("x", "What is it?"), "y": Query("y", "other")},
        {"x": {"1": 1}, "y": {"1": 1, "2": 1}},
    )
    other = Collection(
        "b", {"9": Document("9", "the cat  sat"), "8": Document("8", " ")}, {"z": Query("z", "what is it")}
    )
    overlap = find_overlap(training, [other])
    assert overlap == (frozenset({"x"}), frozenset({"1"}))
    left = without(training, overlap)
    assert (set(left.documents), set(left.queries), left.qrels) == ({"2", "3"}, {"y"}, {"y": {"2": 1}})
    assert find_overlap(training, [training]).doc_ids == frozenset()


def test_pseudo_queries_are_taken_out_of_their_documents():
    documents = {
        "1": Document("1", "A first sentence of some length. And the rest.", "Title one"),
        "2": Document("2", "Only one.", ""),
    }
    bare = Collection("bare", documents, {})
    titles = pseudo_queries(bare, "title")
    assert titles.queries == {"pseudo-1": Query("pseudo-1", "Title one")}
    assert titles.documents["1"].content == documents["1"].text
    assert titles.qrels == {"pseudo-1": {"1": 1}}
    first = pseudo_queries(bare, "first-sentence")
    assert first.queries["pseudo-1"].text == "A first sentence of some length."
    assert first.documents["1"].content == "Title one And the rest."
    with pytest.raises(ValueError, match="title"):
        pseudo_queries(Collection("bare", {"2": documents["2"]}, {}), "title")


def test_the_first_sentence_of_a_script_without_spaces_is_a_pseudo_query():
    bare = Collection("bare", {"1": Document("1", "疫苗训练人体的免疫系统。糖是甜的。盐是咸的。")}, {})
    first = pseudo_queries(bare, "first-sentence")
    assert first.queries["pseudo-1"].text == "疫苗训练人体的免疫系统。"
    assert first.documents["1"].text == "糖是甜的。盐是咸的。"
