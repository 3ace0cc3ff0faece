"""Percentiles, and draws by Zipf's law."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bench.stats import auc, percentile, zipf_draws


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 15), (30, 20), (40, 20), (50, 35), (99, 50), (100, 50)]
)
def test_percentile_by_nearest_rank(percent: float, expected: float) -> None:
    # The textbook example of the nearest-rank method.
    assert percentile([40, 15, 50, 20, 35], percent) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 99) == 7.0


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_percentile_refuses_what_it_cannot_answer(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match=r"values|percent"):
        percentile(values, percent)


def test_zipf_follows_the_law() -> None:
    # With exponent 1 over 4 items the shares are 12, 6, 4 and 3 of 25.
    draws = zipf_draws(4, 1.0, 50_000, random.Random(7))
    counts = Counter(draws)
    for position, share in enumerate((12, 6, 4, 3)):
        # Five standard deviations of a binomial share at this size are below 0.012.
        assert counts[position] / 50_000 == pytest.approx(share / 25, abs=0.012)
    assert set(counts) == {0, 1, 2, 3}


def test_zipf_with_exponent_0_is_uniform() -> None:
    counts = Counter(zipf_draws(5, 0.0, 50_000, random.Random(7)))
    assert all(count / 50_000 == pytest.approx(0.2, abs=0.01) for count in counts.values())


def test_zipf_is_reproducible_and_needs_items() -> None:
    assert zipf_draws(9, 1.1, 20, random.Random(1)) == zipf_draws(9, 1.1, 20, random.Random(1))
    with pytest.raises(ValueError, match="no items"):
        zipf_draws(0, 1.0, 1, random.Random(1))


def test_auc_counts_pairs() -> None:
    assert auc([2, 3], [1, 1]) == 1
    assert auc([1, 3], [1, 2]) == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    assert auc([], [1]) == auc([1], []) == 0.5
