"""Rows of like length in one batch, in an order that only the seed decides."""

from __future__ import annotations

import random
from collections.abc import Sequence

# Rows that are sorted by length together, in batches: enough for hardly any padding, few enough
# that long rows come all along.
_SORTED_BATCHES = 64


def batches(lengths: Sequence[int], most_tokens: int, order: random.Random) -> list[list[int]]:
    """Positions of all rows, in batches of at most `most_tokens` padded tokens, shuffled.

    lengths: of each row, in tokens. A row that is longer than `most_tokens` has a batch of its own.
    """
    if not lengths:
        return []
    rows = list(range(len(lengths)))
    order.shuffle(rows)
    mean = max(1, sum(lengths) // len(lengths))
    window = _SORTED_BATCHES * max(1, most_tokens // mean)
    made: list[list[int]] = []
    for start in range(0, len(rows), window):
        batch: list[int] = []
        for row in sorted(rows[start : start + window], key=lengths.__getitem__):
            if batch and (len(batch) + 1) * lengths[row] > most_tokens:
                made.append(batch)
                batch = []
            batch.append(row)
        made.append(batch)
    order.shuffle(made)
    return made
