"""One flight per key: whoever asks while a value is being made waits for the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from runtime.deadline import Deadline, expired

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class _Flight(Generic[V]):
    task: asyncio.Task[V]
    waiters: int = 0


class Flights(Generic[K, V]):
    """Makes each value once at a time.

    A flight has `budget_s` of its own, so that the first waiter's short deadline does not
    become everybody's. Waiters leave by their own deadline or when they are cancelled; the
    flight is cancelled when the last one leaves.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._flights: dict[K, _Flight[V]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(
        self, key: K, make: Callable[[Deadline], Coroutine[Any, Any, V]], deadline: Deadline
    ) -> V:
        """The value of the flight under way for `key`, or of a new one.

        Raises what `make` raises, or ServiceError DEADLINE_EXCEEDED by the waiter's own deadline.
        """
        wait_s = deadline.share_s()
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start(key, make)
        flight.waiters += 1
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(flight.task)
        except TimeoutError as error:
            raise expired() from error
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()

    def _start(self, key: K, make: Callable[[Deadline], Coroutine[Any, Any, V]]) -> _Flight[V]:
        flight = _Flight(asyncio.create_task(make(Deadline.after(self._budget_s))))
        self._flights[key] = flight
        flight.task.add_done_callback(lambda _: self._land(key, flight))
        return flight

    def _land(self, key: K, flight: _Flight[V]) -> None:
        self._forget(key, flight)
        if not flight.task.cancelled():
            # Looked at here, or asyncio complains of a failure that nobody waited for.
            flight.task.exception()

    def _forget(self, key: K, flight: _Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


class Background:
    """A bounded number of tasks nobody waits for; one more is not started."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Starts `work`, which raises nothing; False when too much is under way."""
        if len(self._tasks) >= self._most:
            return False
        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def aclose(self) -> None:
        """Waits for what is under way."""
        await asyncio.gather(*self._tasks)
