"""The report of a throughput run: ratios, shares and targets."""

from __future__ import annotations

import numpy as np
import pytest

from bench.ceiling import Shape
from bench.reference import Computed
from bench.throughput import Ceiling, _report, padding, share_of_limit
from bench.turns import Course, Turn
from bench.vectors import largest_cosine_loss

SHAPE = Shape(hidden=1000, intermediate=1000, layers=1)  # 12 MFLOP a token, and its attention


def course(name: str, seconds: float, vectors: list[list[float]]) -> Course:
    return Course(name, [Turn(Computed(np.array(vectors, np.float32), seconds), 1.0, 0.0)])


def test_the_worst_text_counts_whatever_the_lengths_of_the_vectors() -> None:
    reference = np.array([[1, 0], [0, 2]], np.float32)
    assert largest_cosine_loss(reference * 3, reference) == 0
    assert largest_cosine_loss(np.array([[1, 0], [1, 1]], np.float32), reference) == pytest.approx(
        1 - 0.5**0.5
    )


def test_speed_share_and_cosine_are_held_to_their_targets() -> None:
    exact, off = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]
    ceiling = Ceiling({}, 1.0, {("torch", "fp32"): [2.0], ("torch", "bf16"): [4.9]})
    flops = SHAPE.token_flops(250)  # 12 MFLOP and 1 MFLOP
    assert flops == 13e6

    report = _report(
        [course("base", 10, exact), course("ours", 2, off)], [250, 250], ceiling, SHAPE
    )

    fast, faster, share, loss = report.targets
    assert (faster.limit, faster.met) == (6, False)
    assert (fast.value, fast.met) == (5, True)
    assert (share.value, share.met) == (pytest.approx(500 / 2 * 13e6 / 4.9e9), True)
    assert (loss.value, loss.met) == (pytest.approx(1 - 0.5**0.5), False)
    speed, limits, _ = report.tables
    assert speed.rows[0] == ("base", "0.200", "50.0", "1.00", "13%", "0.000000", "1.00")
    assert [row[:2] for row in limits.rows] == [("torch fp32", "2.00"), ("torch bf16", "4.90")]


def test_the_share_is_that_of_the_median_slice_to_its_own_limit() -> None:
    flops = SHAPE.token_flops(250)
    turns = [
        Turn(Computed(np.zeros((1, 1), np.float32), seconds), 1.0, 0.0) for seconds in (1, 2, 4)
    ]
    limits = [limit * 250 * flops / 1e9 for limit in (2.0, 1.0, 0.5)]
    share = share_of_limit(Course("ours", turns), [250] * 3, limits, SHAPE)
    assert share == pytest.approx(0.5)
    slow_at_first = share_of_limit(
        Course("ours", turns), [250] * 3, [limits[0] * 10, *limits[1:]], SHAPE
    )
    assert slow_at_first == pytest.approx(0.5)


def test_padding_is_what_the_longest_of_a_batch_costs_the_others() -> None:
    assert padding([4, 2, 4, 2], 2) == 0
    assert padding([1, 3, 4], 2) == pytest.approx(1 - 8 / 10)
