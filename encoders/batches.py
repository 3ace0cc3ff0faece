"""A batch on its way: chosen, computed in a thread of the model, told."""

from __future__ import annotations

import logging
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic

from encoders.lanes import Item, Lane, P, R

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Generic[P, R]):
    """Rows that are computed together.

    budget_tokens: what it might have held, padded; full: whether no other row fits in.
    supply: what waited when it was chosen over what all streams take at once; at most 1.
    retried: part of a batch that failed.
    """

    lane: Lane
    items: Sequence[Item[P, R]]
    budget_tokens: int
    full: bool
    supply: float
    retried: bool = False
    # Real ones, not padded.
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", sum(item.tokens for item in self.items))

    @property
    def wanted(self) -> bool:
        """Whether each item still has somebody who waits for it."""
        return not any(item.job.answer.done() for item in self.items)


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A check of the model, which takes the way of a batch. `answer`: whether it works."""

    answer: Future[bool]


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """What a probe found."""

    probe: Probe
    works: bool


@dataclass(frozen=True, slots=True, eq=False)
class Outcome(Generic[P, R]):
    """What became of a batch.

    items: those that were computed: the others' callers had left, or their time was up.
    results: one an item; None when the model failed.
    started_s, ended_s: on the batcher's clock.
    """

    batch: Batch[P, R]
    items: Sequence[Item[P, R]]
    results: Sequence[R] | None
    started_s: float
    ended_s: float

    @property
    def duration_s(self) -> float:
        """What it took of one stream's time."""
        return self.ended_s - self.started_s


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """What a caller gets.

    results: one a payload, in order.

    queue_s: until the first of the call's batches began.
    model_s: from then until the last of them ended.
    """

    results: list[R]
    queue_s: float
    model_s: float


@dataclass(frozen=True, slots=True)
class Computation(Generic[P, R]):
    """What a thread of the model does with what it takes. It never raises."""

    run: Callable[[Sequence[P]], Sequence[R]]
    check: Callable[[], object]
    now_s: Callable[[], float]

    def __call__(self, work: Batch[P, R] | Probe) -> Outcome[P, R] | Checked:
        """Computes a batch, or checks the model."""
        if isinstance(work, Probe):
            return Checked(work, self._works())
        return self._compute(work)

    def _compute(self, batch: Batch[P, R]) -> Outcome[P, R]:
        started_s = self.now_s()
        # The last look before it costs time: whether a future is done, any thread may ask.
        items = [item for item in batch.items if item.job.waits(started_s)]
        if not items:
            return Outcome(batch, items, [], started_s, started_s)
        return Outcome(batch, items, self._results(items), started_s, self.now_s())

    def _results(self, items: Sequence[Item[P, R]]) -> Sequence[R] | None:
        try:
            results = self.run([item.payload for item in items])
            if len(results) != len(items):
                raise RuntimeError(f"{len(results)} results for {len(items)} payloads")
        except BaseException:  # panics of Rust too: whatever it throws, its waiters get an answer
            log.exception("the model failed on a batch of %d", len(items))
            return None
        return results

    def _works(self) -> bool:
        try:
            self.check()
        except BaseException:  # broken, in whatever way
            log.warning("the model fails its check", exc_info=True)
            return False
        return True
