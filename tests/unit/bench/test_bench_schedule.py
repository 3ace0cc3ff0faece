"""When an open loop sends its calls."""

from __future__ import annotations

import itertools
import statistics

from bench.schedule import Even, Poisson, arrivals_s


def gaps(dues_s: list[float]) -> list[float]:
    return [later - sooner for sooner, later in itertools.pairwise(dues_s)]


def test_poisson_arrivals_have_the_rate_and_the_spread_of_exponential_gaps() -> None:
    dues_s = arrivals_s(Poisson(100.0, seed=1), 200.0)
    assert dues_s == sorted(dues_s)
    assert dues_s[0] > 0
    assert dues_s[-1] < 200.0
    # 20,000 arrivals, standard deviation 141; the gaps' deviation is as large as their mean.
    assert 19_500 < len(dues_s) < 20_500
    assert 0.95 < statistics.stdev(gaps(dues_s)) / statistics.mean(gaps(dues_s)) < 1.05


def test_the_seed_decides() -> None:
    first, again, other = (arrivals_s(Poisson(50.0, seed), 2.0) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_even_arrivals_never_come_close_to_each_other() -> None:
    dues_s = arrivals_s(Even(20.0, seed=3), 5.0)
    assert len(dues_s) == 100
    assert min(gaps(dues_s)) >= 0.4 / 20
    assert max(gaps(dues_s)) <= 1.6 / 20
    assert len({round(due_s % 0.05, 4) for due_s in dues_s}) > 50  # in step with nothing
