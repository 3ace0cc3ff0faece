"""Generations that nobody needs any more: replaced a while ago, given up, or named by no one."""

from __future__ import annotations

import logging
import time

from gateway.search.building import Builds
from gateway.search.points import Points
from gateway.search.stamps import Stamps
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)


class Retirement:
    """Removes generations. keep_s: how long one that was replaced is kept for its readers."""

    def __init__(self, points: Points, stamps: Stamps, builds: Builds, keep_s: float) -> None:
        self._points = points
        self._stamps = stamps
        self._builds = builds
        self._keep_s = keep_s

    async def look(self, collection: str, deadline: Deadline) -> bool:
        """Clears a dead claim of the collection, and drops what need not be kept: if anything."""
        try:
            return await self._look(collection, deadline)
        except ServiceError as error:
            # The collection was deleted meanwhile, or is not stamped yet.
            if error.reason is not Reason.COLLECTION_NOT_FOUND:
                raise
        return False

    async def _look(self, collection: str, deadline: Deadline) -> bool:
        # In this order: a generation is named before it is made, so one of these that the
        # stamp does not name now was given up.
        there = await self._points.generations(collection, deadline)
        await self._builds.clear_dead(collection, deadline)
        stamp = await self._stamps.fresh(collection, deadline)
        numbers = {there.live, *there.others} - {stamp.generation, stamp.next}
        older = {number for number in numbers if number < stamp.generation}
        if older and not stamp.switched_at:
            await self._builds.note_switch(collection, deadline)  # a crash came before
            numbers -= older
        elif time.time() - stamp.switched_at < self._keep_s:
            numbers -= older
        for number in sorted(numbers):
            await self._points.drop_generation(collection, number, deadline)
            log.info(
                "Removed a generation that nobody needs.",
                extra={"collection": collection, "generation": number},
            )
        return bool(numbers)
