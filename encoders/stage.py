"""The slot between the event loop, which prepares, and the threads, which compute."""

from __future__ import annotations

from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Stage(Generic[T]):
    """Holds at most one thing. Any thread may call any method; only `take` waits."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._held: T | None = None
        self._closed = False

    def put(self, thing: T) -> None:
        """For the first who takes it. Only while nothing is held."""
        with self._changed:
            if self._held is not None:
                raise RuntimeError("the stage holds something already")
            self._held = thing
            self._changed.notify()

    def take_back(self) -> T | None:
        """What is held, which nobody gets then; None when it was taken."""
        with self._changed:
            held, self._held = self._held, None
            return held

    def take(self) -> T | None:
        """Waits for something to be held and takes it; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._held is not None or self._closed)
            held, self._held = self._held, None
            return None if self._closed else held

    def close(self) -> None:
        """Whoever waits, and whoever comes later, gets None."""
        with self._changed:
            self._closed = True
            self._held = None
            self._changed.notify_all()
