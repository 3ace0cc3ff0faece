"""The door: what cannot finish in time is refused at once, not after a wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from runtime.deadline import Deadline, expired
from runtime.errors import Reason, ServiceError

# Weight of the newest duration in the running mean: about the last ten count.
NEWEST_WEIGHT: Final = 0.2
MIN_RETRY_AFTER_S: Final = 0.1


class Admission:
    """At most `concurrency` at work and `waiting` before the door, first come first served."""

    def __init__(self, concurrency: int, waiting: int) -> None:
        self._concurrency = concurrency
        self._most_waiting = waiting
        self._free = asyncio.Semaphore(concurrency)
        self._running = 0
        self._waiting = 0
        self._mean_s = 0.0

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return self._waiting

    @asynccontextmanager
    async def place(self, deadline: Deadline) -> AsyncIterator[None]:
        """A place to work in, for the length of the `with`.

        Raises ServiceError QUEUE_FULL when none can come free in time or too
        many wait already, DEADLINE_EXCEEDED when the time ran out.
        """
        self._check(deadline)
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await self._free.acquire()
        except TimeoutError:
            raise expired() from None
        finally:
            self._waiting -= 1
        started_s = time.monotonic()
        self._running += 1
        try:
            yield
            # Work that failed or was left says nothing of how long work takes.
            self._learn(time.monotonic() - started_s)
        finally:
            self._running -= 1
            self._free.release()

    def expected_wait_s(self) -> float:
        """How long one who comes now is likely to wait, from the last durations."""
        ahead = self._running + self._waiting - self._concurrency + 1
        return max(0, ahead) * self._mean_s / self._concurrency

    def _check(self, deadline: Deadline) -> None:
        remaining_s = deadline.remaining_s()
        if remaining_s <= 0:
            raise expired()
        wait_s = self.expected_wait_s()
        full = self._running >= self._concurrency and self._waiting >= self._most_waiting
        if full or wait_s > remaining_s:
            raise ServiceError(
                Reason.QUEUE_FULL,
                "The generator has as many answers to write as it can finish in time.",
                max(MIN_RETRY_AFTER_S, wait_s),
            )

    def _learn(self, duration_s: float) -> None:
        if self._mean_s == 0.0:
            self._mean_s = duration_s
        self._mean_s += NEWEST_WEIGHT * (duration_s - self._mean_s)
