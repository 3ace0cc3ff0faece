"""How much of a figure, or of a difference, may be the luck of the questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

SEED: Final = 20_261
DRAWS: Final = 10_000
# Sums of the same numbers in another order differ in their last bits.
_ROUNDING: Final = 1e-12


def paired_p(one: Sequence[float], other: Sequence[float]) -> float:
    """p of the two-sided paired randomisation test of Fisher on the mean difference.

    one, other: a measure's value per question, of the same questions in the same order.
    If both ways were alike, each question's two values could as well be exchanged: p is how
    often, over DRAWS random exchanges (seeded), the means differ at least as much as they do,
    the observed one counted among them. It assumes no distribution, and agrees with the
    paired t-test on such data (Smucker, Allan and Carterette, CIKM 2007).
    Raises ValueError where the values do not pair, or there are none.
    """
    if len(one) != len(other) or not one:
        raise ValueError(f"{len(one)} and {len(other)} values are not pairs")
    differences = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    rng = np.random.default_rng(SEED)
    signs = rng.choice(np.array([-1.0, 1.0]), size=(DRAWS, len(differences)))
    exchanged = np.abs(signs @ differences)
    as_large = int(np.sum(exchanged >= abs(differences.sum()) - _ROUNDING))
    return (as_large + 1) / (DRAWS + 1)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean by the percentile bootstrap (Efron 1979).

    DRAWS samples of as many values, drawn with replacement (seeded): between the 2.5th and the
    97.5th percentile of their means. Raises ValueError without values.
    """
    if not values:
        raise ValueError("no values")
    every = np.asarray(values, np.float64)
    rng = np.random.default_rng(SEED)
    # A draw at a time: all at once would be 10,000 rows of indices.
    means = [every[rng.integers(len(every), size=len(every))].mean() for _ in range(DRAWS)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
