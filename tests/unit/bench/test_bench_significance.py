"""The paired randomisation test, against what can be counted and against the t-test."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from bench.significance import DRAWS, interval, paired_p


def test_values_that_are_alike_do_not_differ() -> None:
    assert paired_p([0.5, 0.2, 0.9], [0.5, 0.2, 0.9]) == 1


def test_p_is_the_share_of_exchanges_that_differ_as_much() -> None:
    # Of the 2^8 ways to exchange eight equal differences, two give the full difference.
    p = paired_p([0.7] * 8, [0.6] * 8)
    assert p == pytest.approx(2 / 2**8, abs=0.003)
    assert paired_p([0.6] * 8, [0.7] * 8) == p
    assert paired_p([0.7] * 8, [0.6] * 8) == p  # seeded


def test_the_least_p_is_not_zero() -> None:
    assert paired_p([1.0] * 50, [0.0] * 50) == 1 / (DRAWS + 1)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.05])
def test_it_agrees_with_the_paired_t_test(shift: float) -> None:
    rng = np.random.default_rng(3)
    one = rng.random(400)
    other = one + rng.normal(shift, 0.25, 400)
    differences = other - one
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(len(differences)))
    # 399 degrees of freedom: Student's t is the normal distribution to three digits.
    expected = 2 * (1 - NormalDist().cdf(abs(t)))
    assert paired_p(one.tolist(), other.tolist()) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("one", "other"), [([], []), ([0.1], [0.1, 0.2])])
def test_what_does_not_pair_is_refused(one: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match="not pairs"):
        paired_p(one, other)


def test_the_interval_is_that_of_the_normal_distribution_for_many_values() -> None:
    values = np.random.default_rng(5).normal(0.6, 0.3, 500)
    low, high = interval(values.tolist())
    half = 1.96 * values.std() / math.sqrt(500)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)
    assert interval(values.tolist()) == (low, high)


def test_values_that_are_all_alike_leave_no_room() -> None:
    assert interval([0.5] * 3) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no values"):
        interval([])
