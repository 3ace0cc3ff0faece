"""Which batch is next: of the lane whose turn it is, the oldest with what is like it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Generic

from encoders.admission import Load, Speed
from encoders.batches import Batch
from encoders.lanes import LANES, Item, Job, Lane, P, R, choose_batch
from encoders.limits import Limits
from encoders.turns import Turns
from encoders.waiting import Waiting
from runtime.errors import ServiceError

# What waits is shared among the streams down to batches of this many tokens, so that they end
# together: a stream is nearly as fast with 64 tokens as with any more.
LEAST_SHARED_TOKENS: Final = 64


class Schedule(Generic[P, R]):
    """Everything that is not answered: waiting, to be tried again, or running.

    A batch that was chosen still waits until it `starts`: it keeps its place.

    padded: tokens of an item → length of its row.
    streams: how many batches run at once.
    """

    def __init__(
        self, limits: Limits, speed: Speed, padded: Callable[[int], int], streams: int
    ) -> None:
        self._limits = limits
        self._speed = speed
        self._padded = padded
        self._streams = streams
        self._turns = Turns(limits.bulk_share, limits.bulk_quantum_s)
        self.waiting: Waiting[P, R] = Waiting()
        # Of batches that failed; out of the queue, and first in their lane.
        self._parts: dict[Lane, deque[Batch[P, R]]] = {lane: deque() for lane in LANES}
        # Each with what bulk's share was charged for it.
        self._running: dict[Batch[P, R], float] = {}
        # Lanes in which something came since the last choice.
        self._grown: set[Lane] = set()

    @property
    def quiet(self) -> bool:
        """Whether nothing runs."""
        return not self._running

    def add(self, job: Job[P, R], items: list[Item[P, R]]) -> None:
        """At the end of the job's lane."""
        self.waiting.add(job, items)
        self._grown.add(job.lane)

    def load(self, lane: Lane) -> Load:
        """What is before a newcomer in `lane`."""
        running = sum(batch.tokens for batch in self._running)
        parts = sum(part.tokens for queue in self._parts.values() for part in queue)
        return self.waiting.load(lane, running + parts)

    def stands(self, chosen: Batch[P, R]) -> bool:
        """Whether nothing came that makes another choice better, and nobody of it left."""
        return (
            chosen.wanted
            and chosen.lane == self._turn()
            and (chosen.full or chosen.lane not in self._grown)
        )

    def choose(self) -> Batch[P, R] | None:
        """The next batch; None when nothing waits."""
        self._grown.clear()
        for parts in self._parts.values():
            _drop_left(parts)
        lane = self._turn()
        if lane is None:
            return None
        if self._parts[lane]:
            return self._parts[lane][0]
        queue, limits = self.waiting.lanes[lane], self._limits
        most = limits.batch_tokens
        if lane == "bulk":
            most = min(most, self._speed.tokens_in(limits.bulk_quantum_s, most))
        budget = most
        if self._streams > 1:
            budget = min(most, max(queue.tokens // self._streams, LEAST_SHARED_TOKENS))
        items = choose_batch(
            queue.window(limits.window_items),
            budget_tokens=budget,
            most_items=limits.batch_items,
            padded=self._padded,
        )
        width = max(self._padded(item.tokens) for item in items)
        full = len(items) >= limits.batch_items or (len(items) + 1) * width > most
        # In rows too: short questions fill those of a batch long before its tokens.
        supply = max(queue.tokens / (most * self._streams), len(queue) / self._limits.window_items)
        return Batch(lane, items, most, full, min(1.0, supply))

    def start(self, batch: Batch[P, R]) -> None:
        """It runs now, and waits no longer."""
        if batch.retried:
            self._parts[batch.lane].remove(batch)
        else:
            self.waiting.take(batch.items)
        charged_s = 0.0
        if batch.lane == "bulk":
            expected_s = self._speed.stream_seconds_for(batch.tokens)
            charged_s = self._turns.bulk_starts(expected_s, interactive=self._waits("interactive"))
        self._running[batch] = charged_s

    def end(self, batch: Batch[P, R], duration_s: float) -> None:
        """It ran, whatever came of it."""
        charged_s = self._running.pop(batch)
        if batch.lane == "bulk":
            self._turns.bulk_ended(charged_s, duration_s)
        else:
            self._turns.interactive_ended(duration_s, bulk=self._waits("bulk"))

    def retry(self, batch: Batch[P, R], items: Sequence[Item[P, R]]) -> None:
        """Either half of it comes next in its lane, by itself. At least two items."""
        middle = len(items) // 2
        for half in (items[middle:], items[:middle]):
            self._parts[batch.lane].appendleft(_part(batch, half))

    def fail_all(self, error: ServiceError) -> None:
        """Answers everyone with it, also those whose batch runs."""
        self.waiting.fail_all(error)
        for batch in (*self._running, *(part for parts in self._parts.values() for part in parts)):
            for item in batch.items:
                self.waiting.fail(item.job, error)

    def _turn(self) -> Lane | None:
        return self._turns.next(interactive=self._waits("interactive"), bulk=self._waits("bulk"))

    def _waits(self, lane: Lane) -> bool:
        return bool(self.waiting.lanes[lane] or self._parts[lane])


def _part(batch: Batch[P, R], items: Sequence[Item[P, R]]) -> Batch[P, R]:
    return replace(batch, items=items, full=True, retried=True)


def _drop_left(parts: deque[Batch[P, R]]) -> None:
    """Leaves what is still waited for of the first part."""
    while parts and not parts[0].wanted:
        part = parts.popleft()
        if items := [item for item in part.items if not item.job.answer.done()]:
            parts.appendleft(_part(part, items))
