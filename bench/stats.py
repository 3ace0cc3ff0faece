"""Numbers that stand for many: percentiles, shares of pairs, and draws by Zipf's law."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Sequence

import numpy as np


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not exceed (nearest rank).

    No interpolation: what is reported was measured. Raises ValueError without values.
    """
    if not values:
        raise ValueError("no values")
    if not 0 < percent <= 100:
        raise ValueError("percent must be above 0 and at most 100")
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """How often one of `higher` is above one of `lower`, ties half; 0.5 when one is empty."""
    if not higher or not lower:
        return 0.5
    left, right = np.array(higher)[:, None], np.array(lower)[None, :]
    return float(np.mean(left > right) + 0.5 * np.mean(left == right))


def zipf_draws(items: int, exponent: float, draws: int, rng: random.Random) -> list[int]:
    """Positions 0..items-1, drawn with probability in proportion to 1 / (position + 1)^exponent.

    Zipf's law in its finite form: the most frequent item is at position 0.
    Raises ValueError without items.
    """
    if items < 1:
        raise ValueError("no items to draw from")
    cumulative = list(itertools.accumulate(1 / rank**exponent for rank in range(1, items + 1)))
    total = cumulative[-1]
    return [bisect.bisect(cumulative, rng.random() * total, hi=items - 1) for _ in range(draws)]
