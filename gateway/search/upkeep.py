"""What the store does by itself: comes up once it can, and sweeps what crashes left behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.search.points import Points
from gateway.search.sweep import ORPHAN_AGE_S, sweep
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
# A server that does not answer by then is waited for in the background.
FIRST_LOOK_S: Final = 5.0
# Between two looks for a server that is not there yet.
PREPARE_PAUSE_S: Final = 2.0
_AWAY: Final = frozenset({Reason.VECTOR_DB_UNAVAILABLE, Reason.DEADLINE_EXCEEDED})


class Upkeep:
    """The background task of a store.

    prepare: makes what must be there before the first request.
    leftovers: set when points were left behind that no record names.
    """

    def __init__(
        self,
        points: Points,
        collection: str,
        prepare: Callable[[Deadline], Awaitable[None]],
        leftovers: asyncio.Event,
    ) -> None:
        self._points = points
        self._collection = collection
        self._prepare = prepare
        self._leftovers = leftovers
        self._task: asyncio.Task[None] | None = None
        self.prepared = False

    async def start(self) -> None:
        """Prepares the store; a server that is not there yet is waited for in the background.

        Raises ServiceError when an embedded store cannot be opened.
        """
        timeout_s = START_TIMEOUT_S if self._points.exclusive else FIRST_LOOK_S
        try:
            await self._prepare(Deadline.after(timeout_s))
            self.prepared = True
        except ServiceError as error:
            if self._points.exclusive or error.reason not in _AWAY:
                raise
            # A server may come after its clients, or go and come back.
            log.warning("The vector store is not there yet: %s", error)
        # The last run may have ended in a crash.
        self._leftovers.set()
        self._task = asyncio.create_task(self._run(), name="store upkeep")

    async def aclose(self) -> None:
        """Stops, in the middle of a sweep if need be: the next one goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self.prepared:
            await asyncio.sleep(PREPARE_PAUSE_S)
            try:
                await self._prepare(Deadline.after(START_TIMEOUT_S))
                self.prepared = True
            except ServiceError as error:
                log.warning("The vector store is not there yet: %s", error)
        while True:
            await self._leftovers.wait()
            self._leftovers.clear()
            # What has just been left is too young at first.
            for pause_s in (0.0, ORPHAN_AGE_S + 60.0):
                await asyncio.sleep(pause_s)
                await self._sweep()

    async def _sweep(self) -> None:
        try:
            removed = await sweep(self._points, self._collection)
        except ServiceError as error:
            log.warning("The sweep broke off: %s", error)
            self._leftovers.set()
            return
        if removed:
            log.info("Removed points that no record names.", extra={"points": removed})
