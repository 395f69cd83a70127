"""Learning curves: what is drawn, where, and what is left out."""

from __future__ import annotations

import math
import re

import pytest

from prorank.evaluate.svg import number
from prorank.pipeline.curves import learning_curves

LOG = [
    {"group": "train", "step": 0, "loss": 2.0, "gap": 0.0},
    {"group": "held_out", "step": 0, "loss": 9.0},
    {"group": "train", "step": 50, "loss": 1.0, "gap": 0.0},
    {"group": "train", "step": 75, "loss": math.nan, "gap": None},
    {"group": "train", "step": 100, "loss": 0.0},
]


def test_a_curve_goes_through_its_points():
    ((caption, svg),) = learning_curves(LOG, [("Loss & co", "train", ("loss", "absent")), ("Gap", "train", ("gap",))])
    assert caption == "Loss & co"
    assert 'aria-label="Loss &amp; co"' in svg
    (path,) = re.findall(r'<path class="curve s1" d="M([^"]+)"', svg)
    points = [tuple(map(float, point.split())) for point in path.split(" L")]
    left, right, top, bottom = 64, 704, 28, 200
    assert points == [(left, top), ((left + right) / 2, (top + bottom) / 2), (right, bottom)]
    assert ">loss</text>" in svg
    assert "absent" not in svg


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (2500, "2500"),
        (10_000, "1e4"),
        (12_500, "1.25e4"),
        (0.0002, "2e-4"),
        (0.00025, "2.5e-4"),
        (0.5, "0.5"),
    ],
)
def test_ticks_show_all_of_their_number(value, shown):
    assert number(value) == shown
