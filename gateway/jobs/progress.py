"""How far a running job is, and how it waits for what is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from runtime.errors import Reason, ServiceError

# A part that is away is asked again after so long, then twice as long, and so on.
FIRST_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 30.0
# What passes by itself: the work is tried again for as long as the job may stand still.
TRANSIENT: Final = frozenset(
    {
        Reason.QUEUE_FULL,
        Reason.DEADLINE_EXCEEDED,
        Reason.MODEL_LOADING,
        Reason.DRAINING,
        Reason.UNAVAILABLE,
        Reason.VECTOR_DB_UNAVAILABLE,
        Reason.EMBEDDER_UNAVAILABLE,
    }
)

T = TypeVar("T")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the jobs know it. now: RFC 3339 in UTC; monotonic_s, sleep: seconds.

    pulse_s: when a job last gave a sign of life beside its progress, like monotonic_s.
    """

    now: Callable[[], str] = _now
    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    pulse_s: Callable[[], float] = lambda: 0.0


class Progress:
    """How far the running job is. fault: what it waits for, while it does.

    Two things keep it from standing still: that it gets further, and signs of life on the way
    there. What is tried again after a fault gives signs of life every time and may never get
    further: a full disk is written to with vectors made anew. So from a fault on only the
    first counts.
    """

    def __init__(self, clock: Clock, done: int, total: int) -> None:
        self._clock = clock
        self.done = done
        self.total = total
        self.fault: ServiceError | None = None
        # In this run: what is gone through again after a restart is further every time.
        self._furthest = 0
        self._further_s = self._sign_s = clock.monotonic_s()

    def report(self, done: int, total: int) -> None:
        """So many of so many documents are done; as many as before is a sign of life."""
        self.done, self.total = done, total
        if done > self._furthest:
            self._furthest = done
            self.alive()
        self._sign_s = self._clock.monotonic_s()

    def alive(self) -> None:
        """Something was done for good, if not a whole document."""
        self._further_s = self._clock.monotonic_s()
        self.fault = None

    def idle_s(self) -> float:
        """Seconds for which it stands still."""
        return self._clock.monotonic_s() - self._moved_s()

    def _moved_s(self) -> float:
        if self.fault is not None:
            return self._further_s
        return max(self._further_s, self._sign_s, self._clock.pulse_s())

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` gives; it is made again while it fails for what passes by itself.

        Not bounded here: whoever watches the progress cancels it.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await attempt()
            except ServiceError as error:
                if error.reason not in TRANSIENT:
                    raise
                if self.fault is None:
                    self._further_s = self._moved_s()  # all was well until now
                self.fault = error
                await self._clock.sleep(max(pause_s, error.retry_after_s or 0.0))
                pause_s = min(pause_s * 2, MOST_PAUSE_S)
