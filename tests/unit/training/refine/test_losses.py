"""Losses of stage 2: hand-derived values, sentence-transformers' own losses, finite differences, masks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prorank.training.refine import losses
from prorank.training.refine.config import LABEL_LOSSES

MASK = torch.ones(1, 3, dtype=torch.bool)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


def test_values_by_hand():
    margins, relevance = row(2.0, 0.0, 1.0), row(1.0, 0.0, 0.0)
    e = math.exp
    assert losses.softmax(margins, relevance, MASK).item() == pytest.approx(-math.log(e(2) / (e(2) + 1 + e(1))))
    at_two = losses.softmax(margins, relevance, MASK, temperature=2.0).item()
    assert at_two == pytest.approx(-math.log(e(1) / (e(1) + 1 + e(0.5))))
    pointwise = [math.log(1 + e(-2)), math.log(2), math.log(1 + e(1))]
    assert losses.bce(margins, relevance, MASK).item() == pytest.approx(sum(pointwise) / 3)
    pairs = [math.log2(1 + e(-2)), math.log2(1 + e(-1))]
    assert losses.ranknet(margins, relevance, MASK).item() == pytest.approx(sum(pairs) / 2)
    assert losses.margin_mse(margins, row(3.0, 0.5, 0.0), MASK).item() == pytest.approx((0.5**2 + 2.0**2) / 2)
    assert losses.kl(margins, row(4.0, 0.0, 2.0), MASK, temperature=2.0).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.kl(row(0.0, 0.0), row(math.log(3), 0.0), MASK[:, :2]).item() == pytest.approx(
        0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    )


def test_two_relevant_documents_are_no_rivals():
    both = losses.softmax(row(1.0, 5.0, 0.0), row(1.0, 1.0, 0.0), MASK)
    apart = [losses.softmax(row(m, 0.0), row(1.0, 0.0), MASK[:, :2]) for m in (1.0, 5.0)]
    assert both.item() == pytest.approx(sum(x.item() for x in apart) / 2)


def test_lambda_loss_by_hand():
    """Ranks by margin: relevant at 2. Its gain is 1/1 (ideal DCG 1), the other's 0; |d| = 1."""
    value = losses.lambda_loss(row(0.0, 1.0), row(1.0, 0.0), MASK[:, :2], mu=10.0)
    step = 1 / math.log2(2) - 1 / math.log2(3)
    assert value.item() == pytest.approx((10 * step + step) * math.log2(1 + math.e), rel=1e-5)


class _Model(torch.nn.Module):
    """Stands where sentence-transformers expects a cross-encoder, and gives margins that were chosen before."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self, margins: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.values = {f"{q}:{d}": margins[q, d] for q in range(len(margins)) for d in range(margins.shape[1])}

    def preprocess(self, pairs: Any, **_: Any) -> dict[str, Any]:
        return {"pairs": pairs}

    def forward(self, features: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"scores": torch.stack([self.values[document] for _, document in features["pairs"]])}


def reference(name: str, margins: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The value of sentence-transformers' loss on the same margins and targets."""
    from sentence_transformers.cross_encoder import CrossEncoder
    from sentence_transformers.cross_encoder import losses as theirs

    class Model(_Model, CrossEncoder):
        device = _Model.device
        num_labels = 1

        def __init__(self, *args: Any) -> None:
            _Model.__init__(self, *args)

    model = Model(margins)
    lengths = mask.sum(1).tolist()
    documents = [[f"{q}:{d}" for d in range(n)] for q, n in enumerate(lengths)]
    queries = [f"query {q}" for q in range(len(lengths))]
    labels = [targets[q, :n] for q, n in enumerate(lengths)]
    if name == "bce":
        flat_queries = [query for query, n in zip(queries, lengths, strict=True) for _ in range(n)]
        flat = [d for row_ in documents for d in row_]
        return theirs.BinaryCrossEntropyLoss(model)([flat_queries, flat], torch.cat(labels))
    if name == "margin_mse":
        columns = [[row_[d] for row_ in documents] for d in range(lengths[0])]
        return theirs.MarginMSELoss(model)([queries, *columns], torch.stack(labels))
    kinds = {"ranknet": theirs.RankNetLoss, "lambda": theirs.LambdaLoss, "listnet": theirs.ListNetLoss}
    loss = kinds[name](model, mini_batch_size=-1)
    return loss([queries, documents], labels)


@pytest.mark.parametrize("name", ["bce", "ranknet", "lambda", "listnet", "margin_mse"])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_sentence_transformers(name, seed):
    generator = torch.Generator().manual_seed(seed)
    margins = torch.randn(4, 6, generator=generator) * 3
    grades = 2 if name == "bce" else 4
    targets = torch.randint(0, grades, (4, 6), generator=generator).float()
    targets[:, 0], targets[:, 1] = 1.0, 0.0
    lengths = torch.tensor([6, 6, 6, 6] if name == "margin_mse" else [6, 4, 5, 2])
    mask = torch.arange(6)[None] < lengths[:, None]
    ours, others = margins.clone().requires_grad_(), margins.clone().requires_grad_()
    mine = losses.LOSSES[name](ours, targets, mask)
    wanted = reference(name, others, targets, mask)
    assert mine.item() == pytest.approx(wanted.item(), rel=1e-6, abs=1e-6)
    mine.backward()
    wanted.backward()
    torch.testing.assert_close(ours.grad, others.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_gradients_by_finite_differences(name):
    generator = torch.Generator().manual_seed(3)
    margins = (torch.randperm(10, generator=generator).double().view(2, 5) * 0.7).requires_grad_()
    targets = torch.tensor([[2.0, 0, 1, 0, 0], [0, 1, 0, 0, 0]], dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    assert torch.autograd.gradcheck(lambda m: losses.LOSSES[name](m, targets, mask), (margins,))


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=8),
    st.integers(0, 2**31 - 1),
    st.sampled_from(sorted(losses.LOSSES)),
)
@settings(max_examples=60, deadline=None)
def test_order_padding_and_shift_do_not_matter(values, seed, name):
    generator = torch.Generator().manual_seed(seed)
    n = len(values)
    margins = row(*(v + 1e-3 * i for i, v in enumerate(values)))
    targets = torch.randint(0, 3, (1, n), generator=generator).float()
    targets[0, 0], targets[0, 1] = 2.0, 0.0
    mask = torch.ones(1, n, dtype=torch.bool)
    value = losses.LOSSES[name](margins, targets, mask).item()
    assert math.isfinite(value)
    assert value >= -1e-5
    padded = [torch.cat([x, torch.full((1, 2), 7.0)], 1) for x in (margins, targets)]
    longer = torch.cat([mask, torch.zeros(1, 2, dtype=torch.bool)], 1)
    assert losses.LOSSES[name](*padded, longer).item() == pytest.approx(value, rel=1e-5, abs=1e-5)
    rest = torch.randperm(n - 1, generator=generator) + 1
    order = torch.cat([torch.zeros(1, dtype=torch.long), rest])  # margin_mse compares with the first
    distinct = len({round(float(m), 5) for m in margins[0]}) == n
    if distinct or name != "lambda":
        moved = losses.LOSSES[name](margins[:, order], targets[:, order], mask).item()
        assert moved == pytest.approx(value, rel=1e-4, abs=1e-4)
    if "bce" not in name and distinct:
        assert losses.LOSSES[name](margins + 5, targets, mask).item() == pytest.approx(value, rel=1e-3, abs=1e-3)


def test_balanced_bce_stays_at_zero_whatever_the_number_of_rivals():
    margins = row(*[0.0] * 8).requires_grad_()
    targets = row(1.0, *[0.0] * 7)
    value = losses.balanced_bce(margins, targets, torch.ones(1, 8, dtype=torch.bool))
    value.backward()
    assert value.item() == pytest.approx(math.log(2))
    assert margins.grad is not None
    assert margins.grad.sum().item() == pytest.approx(0.0, abs=1e-7)
    one_sided = losses.balanced_bce(row(0.0, 2.0), row(1.0, 1.0), torch.ones(1, 2, dtype=torch.bool))
    assert one_sided.item() == pytest.approx((math.log(2) + math.log1p(math.exp(-2))) / 2)


def test_combined_reads_what_is_there():
    margins = row(1.0, 0.0, 2.0).requires_grad_()
    weights = {"softmax": 1.0, "kl": 2.0}
    labels, teacher = row(1.0, 0.0, 0.0), row(0.0, 1.0, 0.0)
    both = losses.combined(weights, margins, MASK, relevance=labels, teacher=teacher)
    assert both.total.item() == pytest.approx(both.parts["softmax"] + 2 * both.parts["kl"])
    assert set(losses.combined(weights, margins, MASK, teacher=teacher).parts) == {"kl"}
    nothing = losses.combined({"softmax": 1.0}, margins, MASK, relevance=row(1.0, 1.0, 1.0))
    assert nothing.parts == {}
    nothing.total.backward()
    assert margins.grad is not None
    assert margins.grad.abs().sum() == 0


def test_lists_without_a_rival_teach_softmax_nothing():
    margins = row(1.0, 0.0, 2.0).requires_grad_()
    value = losses.combined({"softmax": 1.0}, margins, MASK, relevance=row(2.0, 1.0, 1.0))
    value.total.backward()
    assert margins.grad is not None
    assert torch.isfinite(margins.grad).all()


@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_documents_of_unknown_relevance_count_in_no_label_loss(name: str) -> None:
    margins, teacher, mask = row(2.0, 1.0, -1.0, 3.0), row(1.0, 0.0, 0.0, 2.0), torch.ones(1, 4, dtype=torch.bool)
    known = losses.combined({name: 1.0}, margins[:, :3], MASK, relevance=row(1.0, 0.0, 0.0))
    judged = row(1.0, 0.0, 0.0, math.nan)
    found = losses.combined({name: 1.0}, margins, mask, relevance=judged, teacher=teacher)
    torch.testing.assert_close(found.total, known.total)
    both = losses.combined({name: 1.0, "kl": 1.0}, margins, mask, relevance=judged, teacher=teacher)
    torch.testing.assert_close(both.total, known.total + losses.LOSSES["kl"](margins, teacher, mask))
