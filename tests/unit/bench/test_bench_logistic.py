"""Logistic regression finds the weights that made the data."""

from __future__ import annotations

import numpy as np
import pytest

from bench.logistic import logistic_regression


def drawn(beta: list[float], count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(count, len(beta) - 1)) * 2
    log_odds = beta[0] + features @ np.array(beta[1:])
    return features, rng.random(count) < 1 / (1 + np.exp(-log_odds))


def test_the_weights_that_made_the_data_are_found() -> None:
    features, labels = drawn([-1.0, 2.0, -0.5])
    found = logistic_regression(features, labels, np.ones(len(labels)))
    assert found == pytest.approx([-1.0, 2.0, -0.5], abs=0.2)


def test_a_row_that_counts_twice_is_two_rows() -> None:
    features, labels = drawn([0.5, 1.0], 200)
    counts = np.where(labels, 2.0, 1.0)
    twice = np.repeat(np.arange(200), counts.astype(int))
    assert logistic_regression(features, labels, counts) == pytest.approx(
        logistic_regression(features[twice], labels[twice], np.ones(len(twice)))
    )


def test_balanced_kinds_meet_at_a_half() -> None:
    features, labels = drawn([-3.0, 1.0])
    counts = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()) * len(labels)
    bias, weight = logistic_regression(features, labels, counts)
    p = 1 / (1 + np.exp(-(bias + features[:, 0] * weight)))
    # The likeliest model's probabilities sum to the counts of what is.
    assert float((counts * p).sum()) == pytest.approx(float(counts[labels].sum()))


def test_kinds_without_overlap_have_finite_weights() -> None:
    features = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    labels = features[:, 0] > 0
    bias, weight = logistic_regression(features, labels, np.ones(4))
    assert np.isfinite([bias, weight]).all()
    assert bias + weight > 0 > bias - weight
