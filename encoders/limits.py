"""The bounds a batcher keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

# Padded length of a short question. A batch has rows enough for its tokens to be questions: 64
# in 1,024 tokens.
SHORT_ROW_TOKENS: Final = 16
# But no more than these, which the event loop chooses in 1 ms: 4,096, the questions in the 65,536
# tokens of a GPU, took it 34 ms. 512 rows of 128 tokens fill such a batch.
MOST_ROWS: Final = 512
# The least that are sorted by length, so that rows of a batch are alike. Who stands in the
# window may be overtaken by what is more like the oldest: simulated at three times the capacity
# with deadlines of 1 s, 256 made a tenth of the admitted calls late, and 32 none, with 5.7 %
# of padding instead of 4.4.
LEAST_WINDOW_ITEMS: Final = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds a batcher keeps.

    queue_tokens: tokens that may wait; one call more than that waits only alone.
    batch_tokens: padded tokens of one batch.
    batch_items: rows of one batch.
    window_items: how many of the oldest items are sorted by length.
    bulk_queue_share: how much of the queue bulk may take, so that it never locks
        interactive callers out.
    bulk_share: of the model's time, for bulk that waits while interactive work comes in.
    bulk_quantum_s: how long one bulk batch should take on its stream; one row longer than
        that is a batch all the same.
    max_failures: items that fail in a row, each alone, before the model is probed: it counts
        as broken when the probe fails too, else the inputs were to blame.
    probe_interval_s: how often a broken model is tried.
    max_probes: after so many failures in a row of these the process is given up.
    """

    queue_tokens: int = 131_072
    batch_tokens: int = 1024
    batch_items: int = 64
    window_items: int = 64
    bulk_queue_share: float = 0.75
    bulk_share: float = 0.2
    # Two rows of 110 tokens on the reference CPU: 14,750 tokens/s in all, while one row (0.015)
    # gives 12,500, since each run costs 2 to 3 ms whatever is in it, and four 15,200. With two
    # streams the next one is free after a third of it on average: 10 ms.
    bulk_quantum_s: float = 0.03
    max_failures: int = 3
    probe_interval_s: float = 1.0
    max_probes: int = 60

    @classmethod
    def of_batches(cls, batch_tokens: int, **others: Any) -> Self:
        """For batches of so many padded tokens, with rows to match."""
        rows = min(max(1, batch_tokens // SHORT_ROW_TOKENS), MOST_ROWS)
        return cls(
            batch_tokens=batch_tokens,
            batch_items=rows,
            window_items=max(rows, LEAST_WINDOW_ITEMS),
            **others,
        )
