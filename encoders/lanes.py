"""What waits for the model: two lanes in order of arrival, and how a batch is cut from one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Generic, Literal, TypeVar

Lane = Literal["interactive", "bulk"]
LANES: Final[tuple[Lane, ...]] = ("interactive", "bulk")

P = TypeVar("P")  # payload: what the model gets
R = TypeVar("R")  # result: what it gives back

# To fill a batch, its rows may grow beyond their own padded lengths by this share of the
# batch, and by this many tokens in any case. A row that needs more goes into a batch of its
# own, whose fixed cost is about 10 tokens' time (measured on one thread of MiniLM: 1.3 ms
# beside 0.13 ms a token).
MAX_PADDING_SHARE: Final = 0.15
FREE_PADDING_TOKENS: Final = 24


@dataclass(slots=True, eq=False, weakref_slot=True)
class Job(Generic[P, R]):
    """One caller's items. `answer` is done exactly once."""

    lane: Lane
    arrived_s: float
    deadline_s: float | None
    answer: asyncio.Future[list[R]]
    results: list[Any]
    unanswered: int
    waiting: set[Item[P, R]] = field(default_factory=set)
    _started_s: float | None = None
    _ended_s: float = 0.0

    @property
    def queue_s(self) -> float:
        """From its arrival until the first of its batches began."""
        return 0.0 if self._started_s is None else self._started_s - self.arrived_s

    @property
    def model_s(self) -> float:
        """From the beginning of its first batch to the end of its last."""
        return 0.0 if self._started_s is None else self._ended_s - self._started_s

    def computed(self, started_s: float, ended_s: float) -> None:
        """One of its batches, which need not end in the order in which they began."""
        first_s = started_s if self._started_s is None else self._started_s
        self._started_s = min(first_s, started_s)
        self._ended_s = max(self._ended_s, ended_s)

    def waits(self, now_s: float) -> bool:
        """Whether the caller is still there and its time is not up. From any thread."""
        in_time = self.deadline_s is None or now_s < self.deadline_s
        return in_time and not self.answer.done()


@dataclass(slots=True, eq=False)
class Item(Generic[P, R]):
    """One row of some batch to come. `tokens` are real ones, not padded."""

    job: Job[P, R]
    index: int
    payload: P
    tokens: int


class LaneQueue(Generic[P, R]):
    """Items in order of arrival; any of them leaves in O(1)."""

    def __init__(self) -> None:
        self._items: OrderedDict[Item[P, R], None] = OrderedDict()
        self.tokens = 0
        # Read by the metrics thread, which must not walk the queue.
        self.oldest_s: float | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item[P, R]) -> None:
        """At the end."""
        self._items[item] = None
        item.job.waiting.add(item)
        self.tokens += item.tokens
        if self.oldest_s is None:
            self.oldest_s = item.job.arrived_s

    def remove(self, item: Item[P, R]) -> None:
        """Wherever it stands."""
        del self._items[item]
        item.job.waiting.discard(item)
        self.tokens -= item.tokens
        first = next(iter(self._items), None)
        self.oldest_s = first.job.arrived_s if first is not None else None

    def window(self, most: int) -> list[Item[P, R]]:
        """The oldest `most` items."""
        return list(islice(self._items, most))


def choose_batch(
    window: Sequence[Item[P, R]],
    *,
    budget_tokens: int,
    most_items: int,
    padded: Callable[[int], int],
) -> list[Item[P, R]]:
    """The oldest item and those nearest to it in length, in rows of one padded length.

    window: at least one item, oldest first.
    budget_tokens: bound of rows x padded length; only the oldest alone may exceed it.
    padded: tokens → length of the row that holds them.
    """
    by_length = sorted(range(len(window)), key=lambda k: (window[k].tokens, k))
    low = high = by_length.index(0)
    alone = padded(window[0].tokens)  # what the rows would cost, each in a batch of its own
    while high - low + 1 < most_items:
        rows = high - low + 2
        best: tuple[int, bool] | None = None
        for longer, k in ((False, low - 1), (True, high + 1)):
            if not 0 <= k < len(by_length):
                continue
            width = padded(window[by_length[k if longer else high]].tokens)
            cost = rows * width
            waste = cost - alone - padded(window[by_length[k]].tokens)
            allowed = max(FREE_PADDING_TOKENS, cost * MAX_PADDING_SHARE)
            if cost <= budget_tokens and waste <= allowed and (best is None or waste < best[0]):
                best = (waste, longer)
        if best is None:
            break
        if best[1]:
            high += 1
            alone += padded(window[by_length[high]].tokens)
        else:
            low -= 1
            alone += padded(window[by_length[low]].tokens)
    return [window[k] for k in by_length[low : high + 1]]
