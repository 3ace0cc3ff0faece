"""A generation's stamp: what it was made with, its write revision, and what is built beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import msgspec

from gateway.search import ids, wire
from gateway.search.points import Points, at, no_collection, split
from gateway.search.types import SCHEMA_VERSION, Model, Stamp
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

T = TypeVar("T")

STAMP: Final = "stamp"
# How old a stamp may be that another gateway could have changed.
STAMP_AGE_S: Final = 1.0
# It waits behind the writes of everybody else: 128 documents with all the metadata they may have
# took longer than 10 s on a busy machine, and were told that they ran out of time.
REVISION_TIMEOUT_S: Final = 120.0
# Each attempt that loses means that somebody else changed the stamp.
ATTEMPTS: Final = 16

# What is to become of a stamp; None, or the same, leaves it as it is. It is asked again when
# another change came between, its own perhaps.
Edit = Callable[[Stamp], Stamp | None]


@dataclass(slots=True)
class _Bumps:
    """Revisions asked for and done, counted; and how many calls wait for one."""

    asked: int = 0
    done: int = 0
    waiting: int = 0
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Stamps:
    """Stamps, remembered, and changed only under the condition of their `seq`.

    The stamp of a collection is that of its live generation. Two generations are two stamps
    with a `seq` each, so a change addresses the generation that was read, never the
    collection: in between another one may have become the live one.
    """

    def __init__(self, points: Points) -> None:
        self._points = points
        self._known: dict[str, tuple[Stamp, float]] = {}
        # Of next generations that count, by collection.
        self._following: dict[str, Stamp] = {}
        self._bumps: dict[str, _Bumps] = {}

    async def read(self, collection: str, deadline: Deadline) -> Stamp:
        """The stamp, perhaps as it was STAMP_AGE_S ago. Raises ServiceError COLLECTION_NOT_FOUND.

        Nobody else writes to an embedded store, and what this gateway changes it knows.
        """
        known = self._known.get(collection)
        if known is not None and (
            self._points.exclusive or time.monotonic() - known[1] < STAMP_AGE_S
        ):
            return known[0]
        return await self.fresh(collection, deadline)

    async def fresh(self, collection: str, deadline: Deadline) -> Stamp:
        """The stamp as stored at some moment after the call. Raises as `read` does."""
        asked_s = time.monotonic()
        try:
            stamp = (await self._fetch(collection, deadline))[0]
        except ServiceError as error:
            if error.reason is Reason.COLLECTION_NOT_FOUND:
                self.forget(collection)
            raise
        self._remember(collection, stamp, asked_s)
        return stamp

    async def following(self, collection: str, live: Stamp, deadline: Deadline) -> Stamp | None:
        """The stamp of the next generation; None if there is none, or it does not count.

        Perhaps as it was when it was first seen: its model and chunking never change. It is
        not asked for at every write, because that generation answers nothing while it is
        optimised, which is a minute for 200,000 chunks.
        """
        if live.next is None:
            self._following.pop(collection, None)
            return None
        known = self._following.get(collection)
        if known is not None and (known.generation, known.born_at) == (live.next, live.born_at):
            return known
        stamp = await self.of_generation(at(collection, live.next), deadline)
        # One without a model replaces a collection that is being deleted: what is written
        # meanwhile was written before.
        if stamp is None or stamp.model is None:
            return None
        self._following[collection] = stamp
        return stamp

    async def in_generation(
        self,
        collection: str,
        deadline: Deadline,
        call: Callable[[Stamp], Awaitable[T]],
        stamp: Stamp | None = None,
    ) -> T:
        """The answer of one generation; of the live one, if that of `stamp` is gone."""
        try:
            return await call(stamp or await self.read(collection, deadline))
        except ServiceError as error:
            if error.reason is not Reason.COLLECTION_NOT_FOUND:
                raise
        return await call(await self.fresh(collection, deadline))

    async def of_generation(self, address: str, deadline: Deadline) -> Stamp | None:
        """The stamp of one generation; None while it or its stamp is not there."""
        try:
            return (await self._fetch(address, deadline))[0]
        except ServiceError as error:
            if error.reason is Reason.COLLECTION_NOT_FOUND:
                return None
            raise

    async def put(self, address: str, stamp: Stamp, deadline: Deadline) -> None:
        """Stamps a generation that has no stamp; one that has keeps it."""
        await self._points.swap(address, _point(stamp, 1), None, deadline)

    async def change(self, collection: str, edit: Edit, deadline: Deadline) -> Stamp:
        """Changes the stamp of the live generation; the stamp as it is then."""
        for _ in range(ATTEMPTS):
            asked_s = time.monotonic()
            stamp, seq = await self._fetch(collection, deadline)
            wanted = edit(stamp)
            if wanted is None or wanted == stamp:
                self._remember(collection, stamp, asked_s)
                return stamp
            new = replace(wanted, revision=time.time_ns())
            address = at(collection, stamp.generation)
            # Whether it took is seen in the next round: then there is nothing left to change.
            await self._points.swap(address, _point(new, seq + 1), seq, deadline)
        raise ServiceError(
            Reason.VECTOR_DB_UNAVAILABLE,
            f"Too many change the stamp of the collection '{collection}' at once.",
            1.0,
        )

    async def claim(self, collection: str, model: Model, deadline: Deadline) -> Stamp:
        """Sets the model at the first write. Raises ServiceError MODEL_MISMATCH on another."""

        def claimed(stamp: Stamp) -> Stamp | None:
            if stamp.dimension != model.dimension:
                raise _wrong_dimension(collection, stamp, model)
            check_model(collection, stamp, model.fingerprint)
            return None if stamp.model is not None else replace(stamp, model=model)

        return await self.change(collection, claimed, deadline)

    async def bump(self, address: str) -> None:
        """Gives a generation's content a new revision, durably. Concurrent calls share a write."""
        bumps = self._bumps.setdefault(address, _Bumps())
        bumps.waiting += 1
        try:
            await self._bump(address, bumps)
        finally:
            bumps.waiting -= 1
            if not bumps.waiting:
                del self._bumps[address]

    async def _bump(self, address: str, bumps: _Bumps) -> None:
        bumps.asked += 1
        ticket = bumps.asked
        async with bumps.writing:
            if bumps.done >= ticket:
                return  # one that began after this call has covered it
            covered = bumps.asked
            # Not a counter, on which two gateways would have to agree: nanoseconds differ.
            revision = time.time_ns()
            await self._points.set_payload(
                address,
                ids.STAMP_ID,
                {"revision": revision},
                Deadline.after(REVISION_TIMEOUT_S),
            )
            bumps.done = covered
            collection, _ = split(address)
            known = self._known.get(collection)
            if known is not None and at(collection, known[0].generation) == address:
                self._known[collection] = (replace(known[0], revision=revision), known[1])

    def forget(self, collection: str) -> None:
        """What was known of the collection is out of date."""
        self._known.pop(collection, None)
        self._following.pop(collection, None)

    def _remember(self, collection: str, stamp: Stamp, asked_s: float) -> None:
        known = self._known.get(collection)
        # Of two answers that crossed, the one that was asked for later is the newer; and of
        # two that only this gateway changes, the one with the later revision.
        if known is not None and (
            asked_s < known[1]
            or (
                self._points.exclusive
                and stamp.generation == known[0].generation
                and stamp.revision < known[0].revision
            )
        ):
            return
        self._known[collection] = (stamp, asked_s)

    async def _fetch(self, address: str, deadline: Deadline) -> tuple[Stamp, int]:
        """The stamp as stored, and its `seq`.

        Raises ServiceError VECTOR_DB_UNAVAILABLE when another version of this program
        wrote the collection in a way this one does not read.
        """
        found = await self._points.retrieve(address, [ids.STAMP_ID], deadline)
        if not found:
            raise no_collection(address)
        schema = found[0].payload["schema_version"]
        if schema != SCHEMA_VERSION:
            raise ServiceError(
                Reason.VECTOR_DB_UNAVAILABLE,
                f"The collection '{address}' has schema version {schema}; "
                f"this program reads {SCHEMA_VERSION}. Index the documents afresh.",
            )
        return msgspec.convert(found[0].payload, Stamp), found[0].payload["seq"]


def check_model(collection: str, stamp: Stamp, fingerprint: str) -> None:
    """Raises ServiceError MODEL_MISMATCH when the collection holds another model's vectors."""
    if stamp.model is not None and stamp.model.fingerprint != fingerprint:
        raise ServiceError(
            Reason.MODEL_MISMATCH,
            f"The collection '{collection}' holds vectors of {stamp.model.name}"
            f"@{stamp.model.fingerprint[:12]}, and the embedder holds another model. "
            "Start the embedder with that model, or use mode 'sparse'.",
            collection=collection,
        )


def _wrong_dimension(collection: str, stamp: Stamp, model: Model) -> ServiceError:
    return ServiceError(
        Reason.MODEL_MISMATCH,
        f"The collection '{collection}' holds vectors of length {stamp.dimension}, and the "
        f"embedder gives {model.dimension}. Set VECTOR_DIM to {model.dimension} and use "
        "another collection, or start the embedder with the model of this one.",
        collection=collection,
    )


def _point(stamp: Stamp, seq: int) -> wire.Point:
    payload: dict[str, Any] = msgspec.to_builtins(stamp)
    return wire.Point(ids.STAMP_ID, {**payload, "kind": STAMP, "seq": seq})
