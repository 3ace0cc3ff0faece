"""The store's side of a rebuild: the claim, what differs, the switch, the retreat.

The stamp of the live generation decides, by swaps under the condition of its `seq`:

    nothing → claimed (`next`, `builder`) → switching → the next generation is live
                 └→ nothing (abandoned)

A claim that is switching only goes forward, by whoever finds it: its generation was complete,
and every writer since has written there, too. A claim that is not may be cleared or taken
over, and its builder cannot switch any more, because it has to pass `switching` first. So a
builder that was stopped for an hour and goes on does no harm, and nothing depends on clocks
but how soon an abandoned claim is found.

The order of things makes every crash one of these states: a generation is named before it is
made, so that one that nobody names is nobody's; it is unnamed before it is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gateway.search.copying import Build
from gateway.search.plan import Plan
from gateway.search.points import Points, at
from gateway.search.stamps import Stamps
from gateway.search.types import SCHEMA_VERSION, Chunking, Model, Stamp, Target
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

# The builder of a claim renewed within this time lives: nobody takes it over.
CLAIM_ALIVE_S: Final = 60
# One that was not renewed for so long is cleared.
CLAIM_DEAD_S: Final = 600
# Switches completed in a row; one is.
ATTEMPTS: Final = 4


class Builds:
    """Next generations, one of a collection at a time."""

    def __init__(self, points: Points, stamps: Stamps, plan: Plan) -> None:
        self._points = points
        self._stamps = stamps
        self._plan = plan
        # What jobs build, in this process: job → generation.
        self._building: dict[str, int] = {}

    async def check(self, collection: str, deadline: Deadline) -> Stamp:
        """The stamp of a collection that can be rebuilt now.

        Raises ServiceError COLLECTION_NOT_FOUND, and REINDEX_RUNNING when it is being rebuilt.
        """
        stamp = await self._stamps.fresh(collection, deadline)
        if stamp.next is not None and _alive(stamp, time.time()):
            raise _running(collection)
        return stamp

    async def claim(
        self,
        collection: str,
        job_id: str,
        model: Model,
        chunking: Chunking | None,
        deadline: Deadline,
    ) -> Build | None:
        """Claims the next generation for a job, or goes on with what that job has claimed.

        chunking: None takes the collection's own. None is returned when what the job had
        to build is live already.
        Raises ServiceError COLLECTION_NOT_FOUND, and REINDEX_RUNNING when another lives.
        """
        stamp = await self._stamps.fresh(collection, deadline)
        if stamp.builder == job_id or not _alive(stamp, time.time()):
            await self.finish(collection, deadline)
        stamp = await self._name(collection, job_id, deadline, force=False)
        if stamp.next is None:
            return None
        wanted = replace(
            self._empty(stamp, stamp.next),
            model=model,
            dimension=model.dimension,
            chunking=chunking or stamp.chunking,
            builder=job_id,
        )
        self._building[job_id] = wanted.generation
        made = await self._make(collection, wanted, deadline)
        # Known before it is optimised: writers need not ask it then.
        await self._stamps.following(collection, stamp, deadline)
        address = at(collection, made.generation)
        return Build(
            collection,
            job_id,
            made.generation,
            at(collection, stamp.generation),
            stamp.chunking,
            Target(address, made.model or model, made.chunking),
        )

    async def empty(self, collection: str, job_id: str, deadline: Deadline) -> None:
        """Puts a generation without documents or model in place of the live one, atomically."""
        await self.finish(collection, deadline)
        stamp = await self._name(collection, job_id, deadline, force=True)
        if stamp.next is None:
            return
        new = replace(self._empty(stamp, stamp.next), builder=job_id, born_at=time.time_ns())
        await self._make(collection, new, deadline)
        await self._mark(collection, job_id, stamp.next, deadline)
        await self.finish(collection, deadline)

    async def renew(self, build: Build, deadline: Deadline) -> None:
        """Says that the builder lives. Raises ServiceError REINDEX_RUNNING if it lost its claim."""
        now = int(time.time())

        def renewed(stamp: Stamp) -> Stamp:
            _check_own(stamp, build.collection, build.job_id, build.number)
            return replace(stamp, renewed_at=now)

        await self._stamps.change(build.collection, renewed, deadline)

    async def switch(self, build: Build, deadline: Deadline) -> None:
        """Makes the next generation the live one.

        Raises ServiceError REINDEX_RUNNING if the claim was lost; then nothing has happened.
        """
        await self._mark(build.collection, build.job_id, build.number, deadline)
        await self.finish(build.collection, deadline)
        self._building.pop(build.job_id, None)

    async def _mark(self, collection: str, job_id: str, number: int, deadline: Deadline) -> None:
        now = int(time.time())

        def marked(stamp: Stamp) -> Stamp:
            _check_own(stamp, collection, job_id, number)
            return replace(stamp, switching=True, renewed_at=now)

        await self._stamps.change(collection, marked, deadline)

    async def finish(self, collection: str, deadline: Deadline) -> None:
        """Completes a switch that has begun, whoever began it.

        One who was stopped before the switch itself may come with it when a later one has
        been made, and so go back; what is live then says `switching` as well, and the loop
        goes forward again. Nothing is lost meanwhile: writers see that stamp and write to both.
        A document written in between to the later generation alone is not found in that moment,
        and a delete of it then answers that there was none: it is there again after it.
        """
        for _ in range(ATTEMPTS):
            stamp = await self._stamps.fresh(collection, deadline)
            if not stamp.switching or stamp.next is None:
                return
            await self._points.switch(collection, stamp.next, deadline)
            await self.note_switch(collection, deadline)

    async def note_switch(self, collection: str, deadline: Deadline) -> None:
        """Notes when the live generation became it, from which the older ones are kept a while.

        Where a crash came between the switch and its note, that is now.
        """
        now = int(time.time())

        def noted(stamp: Stamp) -> Stamp | None:
            return None if stamp.switched_at else replace(stamp, switched_at=now)

        await self._stamps.change(collection, noted, deadline)

    async def abandon(self, collection: str, job_id: str, deadline: Deadline) -> bool:
        """Gives up what the job has claimed; nothing of it stays. False: it has been switched to.

        An absent collection is fine.
        """
        building = self._building.pop(job_id, None)
        try:
            stamp = await self._stamps.fresh(collection, deadline)
            if stamp.builder == job_id:
                await self.finish(collection, deadline)
            stamp = await self._clear(collection, deadline, lambda it: it.builder == job_id)
        except ServiceError as error:
            if error.reason is not Reason.COLLECTION_NOT_FOUND:
                raise
            if building is not None:
                # Whoever deleted the collection may have been stopped before this one's turn.
                await self._points.drop_generation(collection, building, deadline)
            return True
        return not (stamp.builder == job_id and stamp.next is None)

    async def clear_dead(self, collection: str, deadline: Deadline) -> None:
        """Clears a claim whose builder is gone, or completes its switch."""
        now = time.time()
        stamp = await self._stamps.fresh(collection, deadline)
        if stamp.switching and not _alive(stamp, now):
            await self.finish(collection, deadline)
        elif stamp.next is not None:
            await self._clear(collection, deadline, lambda it: now - it.renewed_at >= CLAIM_DEAD_S)

    async def _clear(
        self, collection: str, deadline: Deadline, given_up: Callable[[Stamp], bool]
    ) -> Stamp:
        """Clears the claim if `given_up` says so and it is not switching; then its generation."""
        dropped: list[int] = []

        def cleared(stamp: Stamp) -> Stamp | None:
            if stamp.next is None or stamp.switching or not given_up(stamp):
                return None
            dropped.append(stamp.next)
            return replace(stamp, next=None, builder="", renewed_at=0)

        stamp = await self._stamps.change(collection, cleared, deadline)
        for number in dropped:
            if number not in (stamp.generation, stamp.next):
                await self._points.drop_generation(collection, number, deadline)
        return stamp

    async def _name(
        self, collection: str, job_id: str, deadline: Deadline, *, force: bool
    ) -> Stamp:
        """Names the next generation in the stamp of the live one; `force` takes over any claim."""
        there = await self._points.generations(collection, deadline)
        highest = max((there.live, *there.others))
        now = int(time.time())

        def named(stamp: Stamp) -> Stamp | None:
            if stamp.builder == job_id:
                # Its own claim, or (without `next`) the generation that it made live.
                return None if stamp.next is None else replace(stamp, renewed_at=now)
            if stamp.switching or (stamp.next is not None and not force and _alive(stamp, now)):
                raise _running(collection)
            number = max(highest, stamp.generation, stamp.newest) + 1
            return replace(stamp, next=number, builder=job_id, renewed_at=now, newest=number)

        return await self._stamps.change(collection, named, deadline)

    def _empty(self, live: Stamp, number: int) -> Stamp:
        """The stamp of a generation to be made, as if nothing was ever written."""
        return Stamp(
            model=None,
            chunking=live.chunking,
            dimension=self._plan.dimension,
            bm25=self._plan.bm25,
            schema_version=SCHEMA_VERSION,
            revision=time.time_ns(),
            generation=number,
            newest=number,
            born_at=live.born_at,
        )

    async def _make(self, collection: str, wanted: Stamp, deadline: Deadline) -> Stamp:
        """Makes the generation with its stamp; one that has a stamp is gone on with."""
        address = at(collection, wanted.generation)
        made = await self._stamps.of_generation(address, deadline)
        if made is None:
            config = self._plan.config(wanted.dimension)
            await self._points.create_generation(collection, wanted.generation, config, deadline)
            await self._stamps.put(address, wanted, deadline)
            made = await self._stamps.of_generation(address, deadline)
        if made is None:
            raise _running(collection)  # somebody else has taken over and cleared up
        return made


def _alive(stamp: Stamp, now_s: float) -> bool:
    return now_s - stamp.renewed_at < CLAIM_ALIVE_S


def _check_own(stamp: Stamp, collection: str, job_id: str, number: int) -> None:
    if (stamp.builder, stamp.next) != (job_id, number):
        raise ServiceError(
            Reason.REINDEX_RUNNING,
            f"The rebuild of '{collection}' was given up, or is another's now.",
            collection=collection,
        )


def _running(collection: str) -> ServiceError:
    return ServiceError(
        Reason.REINDEX_RUNNING,
        f"The collection '{collection}' is being rebuilt.",
        collection=collection,
    )
