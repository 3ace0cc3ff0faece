"""Whether the model works: failures in a row make it doubtful, and a probe decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from encoders.admission import broken
from encoders.limits import Limits
from runtime.errors import ServiceError

log = logging.getLogger(__name__)


class Examiner:
    """Counts failures, and takes a broken model out of service until a probe succeeds.

    works: runs the probe, with nothing beside it.
    on_broken: told first, with the error for everyone who waits.
    on_health: told False when it breaks, True when a probe succeeded.
    on_end: told when an examination has ended, with the fault that ended it, if one did.
    give_up: called when `limits.max_probes` of them failed in a row: some faults, such as
        those of a CUDA context, never heal in the process that has them.
    """

    def __init__(
        self,
        limits: Limits,
        works: Callable[[], Awaitable[bool]],
        *,
        on_broken: Callable[[ServiceError], None],
        on_health: Callable[[bool], Awaitable[None]],
        on_end: Callable[[BaseException | None], None],
        give_up: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._works = works
        self._on_broken = on_broken
        self._on_health = on_health
        self._on_end = on_end
        self._give_up = give_up
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        # Whether it is out of service.
        self.broken = False

    @property
    def busy(self) -> bool:
        """Whether it examines: nothing else may run."""
        return self._task is not None

    def succeeded(self) -> None:
        """A batch did."""
        self._failures = 0

    def failed(self) -> None:
        """An item did, alone. Several in a row, with no success between them, are examined."""
        self._failures += 1
        if self._failures >= self._limits.max_failures and self._task is None:
            self._task = asyncio.create_task(self._examine(), name="model check")
            self._task.add_done_callback(self._ended)

    async def aclose(self) -> None:
        """Ends the examination."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _examine(self) -> None:
        """Were the inputs to blame, or is the model broken?"""
        log.error("the model failed %d times in a row", self._failures)
        if not await self._works():
            self.broken = True
            self._on_broken(broken(self._limits.probe_interval_s))
            await self._on_health(False)
            for _ in range(self._limits.max_probes):
                await asyncio.sleep(self._limits.probe_interval_s)
                if await self._works():
                    break
            else:
                log.critical("the model failed %d probes in a row", self._limits.max_probes)
                self._give_up()
                return
            self.broken = False
            await self._on_health(True)
        log.info("the model works")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._failures = 0
        self._on_end(None if task.cancelled() else task.exception())
