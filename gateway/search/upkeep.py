"""What the store does by itself: comes up once it can, and clears up what is left behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.search.points import FAILED, FolderInUse, Points, at
from gateway.search.retirement import Retirement
from gateway.search.stamps import Stamps
from gateway.search.sweep import ORPHAN_AGE_S, TOMBSTONE_AGE_S, sweep
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
# A server that does not answer by then is waited for in the background.
FIRST_LOOK_S: Final = 5.0
# Between two looks for a server that is not there yet.
PREPARE_PAUSE_S: Final = 2.0
# Between two looks at the generations, and for one.
LOOK_PAUSE_S: Final = 10.0
LOOK_TIMEOUT_S: Final = 30.0
# A store of this gateway's own is opened so often, with so long between: it may be killed over it.
OPENINGS: Final = 4
OPENING_PAUSE_S: Final = 0.5
# Before each of the sweeps that follow a call for one: what has just been left behind is too
# young at first, and a tombstone is for longer.
SWEEP_PAUSES_S: Final = (0.0, ORPHAN_AGE_S + 60.0, float(TOMBSTONE_AGE_S))


class Upkeep:
    """The background task of a store.

    prepare: makes what must be there before the first request.
    leftovers: set when points were left behind that no record names.
    """

    def __init__(
        self,
        points: Points,
        stamps: Stamps,
        retirement: Retirement,
        prepare: Callable[[Deadline], Awaitable[None]],
        leftovers: asyncio.Event,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._points = points
        self._stamps = stamps
        self._retirement = retirement
        self._prepare = prepare
        self._leftovers = leftovers
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []
        # Why the store cannot be used yet, for people; None once it is prepared.
        self.fault: str | None = "The vector store is being opened."

    async def start(self) -> None:
        """Prepares the store; a server that is not fit for use is waited for in the background.

        Raises ServiceError when an embedded store cannot be opened.
        """
        if self._points.exclusive:
            await self._open()
        else:
            await self._try_to_prepare(FIRST_LOOK_S)
        # The last run may have ended in a crash.
        self._leftovers.set()
        self._tasks = [
            asyncio.create_task(self._run(), name="store upkeep"),
            asyncio.create_task(self._watch(), name="store generations"),
        ]

    async def _open(self) -> None:
        """Prepares a store of this gateway's own; again, OPENINGS times, if its process dies."""
        for left in reversed(range(OPENINGS)):
            try:
                await self._prepare(Deadline.after(START_TIMEOUT_S))
            except ServiceError as error:
                lasting = error.reason is not Reason.VECTOR_DB_UNAVAILABLE
                if lasting or isinstance(error, FolderInUse) or not left:
                    raise
                log.warning("The vector store did not open, and is tried again: %s", error)
                await self._sleep(OPENING_PAUSE_S)
            else:
                self.fault = None
                return

    async def aclose(self) -> None:
        """Stops, in the middle of a sweep if need be: the next one goes on."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self) -> None:
        # A server may come after its clients, or be mended while they wait.
        while self.fault is not None:
            await self._sleep(PREPARE_PAUSE_S)
            await self._try_to_prepare(START_TIMEOUT_S)
        while True:
            await self._leftovers.wait()
            self._leftovers.clear()
            await self._sweep_until_old()

    async def _try_to_prepare(self, timeout_s: float) -> None:
        try:
            await self._prepare(Deadline.after(timeout_s))
        except Exception as error:
            fault, cause = (
                (error.message, None) if isinstance(error, ServiceError) else (FAILED, error)
            )
            if fault != self.fault:  # said once, not at every look
                log.warning("The vector store cannot be used yet: %s", fault, exc_info=cause)
            self.fault = fault
        else:
            self.fault = None

    async def _sweep_until_old(self) -> None:
        for pause_s in SWEEP_PAUSES_S:
            await self._sleep(pause_s)
            await self._sweep()

    async def _sweep(self) -> None:
        try:
            removed = 0
            for name in await self._collections():
                stamp = await self._stamps.of_generation(name, Deadline.after(LOOK_TIMEOUT_S))
                if stamp is not None:
                    removed += await sweep(
                        self._points,
                        at(name, stamp.generation),
                        tombstones_too=stamp.next is None,
                    )
        except Exception as error:
            _report("The sweep broke off", error)
            self._leftovers.set()
            return
        if removed:
            log.info("Removed points that no record names.", extra={"points": removed})

    async def _watch(self) -> None:
        """Looks after the generations of all collections, now and then."""
        while True:
            await self._sleep(LOOK_PAUSE_S)
            if self.fault is None:
                await self._look()

    async def _look(self) -> None:
        try:
            for name in await self._collections():
                if await self._retirement.look(name, Deadline.after(LOOK_TIMEOUT_S)):
                    self._leftovers.set()  # what writers left in the one that was being built
        except Exception as error:
            _report("Looking after the generations broke off", error)

    async def _collections(self) -> list[str]:
        return await self._points.collections(Deadline.after(LOOK_TIMEOUT_S))


def _report(what: str, error: Exception) -> None:
    log.warning("%s: %s", what, error, exc_info=None if isinstance(error, ServiceError) else error)
