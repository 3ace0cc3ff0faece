"""Everyone who waits for the model: both lanes, their deadlines, and the ways out of the queue."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import Final, Generic
from weakref import ReferenceType, ref

from encoders.admission import Load
from encoders.lanes import LANES, Item, Job, Lane, LaneQueue, P, R
from runtime.deadline import expired
from runtime.errors import ServiceError

# Deadlines of calls that were answered, 200 bytes each, that may lie about.
_SPARE_DEADLINES: Final = 1000


class Waiting(Generic[P, R]):
    """Jobs whose items are queued. Each leaves with an answer, an error, or by its own wish."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, LaneQueue[P, R]] = {lane: LaneQueue() for lane in LANES}
        # Weak, so that an answer is not kept until the deadline it was in time for.
        self._deadlines: list[tuple[float, int, ReferenceType[Job[P, R]]]] = []
        self._most_deadlines = _SPARE_DEADLINES
        self._sequence = itertools.count()

    def add(self, job: Job[P, R], items: list[Item[P, R]]) -> None:
        """At the end of the job's lane."""
        for item in items:
            self.lanes[job.lane].add(item)
        if job.deadline_s is not None:
            heapq.heappush(self._deadlines, (job.deadline_s, next(self._sequence), ref(job)))
            if len(self._deadlines) > self._most_deadlines:
                self._forget_answered()

    def load(self, lane: Lane, running_tokens: int) -> Load:
        """What is before a newcomer in `lane`."""
        return Load(
            own=self.lanes[lane].tokens,
            other=sum(queue.tokens for name, queue in self.lanes.items() if name != lane),
            running=running_tokens,
        )

    def drop_expired(self, now_s: float) -> int:
        """Answers those whose time has run out; how many they were."""
        dropped = 0
        while self._deadlines and self._deadlines[0][0] <= now_s:
            job = heapq.heappop(self._deadlines)[2]()
            if job is not None and not job.answer.done():
                self.fail(job, expired())
                dropped += 1
        return dropped

    def _forget_answered(self) -> None:
        """Their deadlines would stay until they pass: minutes of calls, with long ones."""
        self._deadlines = [
            entry for entry in self._deadlines if (job := entry[2]()) and not job.answer.done()
        ]
        heapq.heapify(self._deadlines)
        self._most_deadlines = _SPARE_DEADLINES + 2 * len(self._deadlines)

    def take(self, items: Sequence[Item[P, R]]) -> None:
        """These wait no longer: a thread computes them. Who left meanwhile is not there."""
        for item in items:
            if item in item.job.waiting:
                self.lanes[item.job.lane].remove(item)

    @staticmethod
    def answer(item: Item[P, R], result: R) -> None:
        """One item's result; the job has its answer with the last of them."""
        job = item.job
        job.results[item.index] = result
        job.unanswered -= 1
        if job.unanswered == 0 and not job.answer.done():
            job.answer.set_result(job.results)

    def fail(self, job: Job[P, R], error: ServiceError) -> None:
        """Answers the job with an error, unless it has its answer, and takes it out."""
        if not job.answer.done():
            job.answer.set_exception(error)
        self.withdraw(job)

    def fail_all(self, error: ServiceError) -> None:
        """Answers everyone with it."""
        for queue in self.lanes.values():
            for item in queue.window(len(queue)):
                self.fail(item.job, error)

    def withdraw(self, job: Job[P, R]) -> None:
        """Takes out what is left of the job."""
        for item in tuple(job.waiting):
            self.lanes[job.lane].remove(item)
