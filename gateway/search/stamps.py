"""A collection's stamp: what it was made with, and its write revision."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from gateway.search import ids, wire
from gateway.search.points import Points, no_collection
from gateway.search.types import SCHEMA_VERSION, Bm25, Chunking, Model, Stamp
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

STAMP: Final = "stamp"
# How old a stamp may be that another gateway could have changed.
STAMP_AGE_S: Final = 1.0
REVISION_TIMEOUT_S: Final = 10.0


@dataclass(slots=True)
class _Bumps:
    """Revisions asked for and done, counted."""

    asked: int = 0
    done: int = 0
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Stamps:
    """Stamps of collections, remembered, and changed only under the condition of their `seq`."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._known: dict[str, tuple[Stamp, float]] = {}
        self._bumps: dict[str, _Bumps] = {}

    async def read(self, collection: str, deadline: Deadline) -> Stamp:
        """The stamp. Raises ServiceError COLLECTION_NOT_FOUND."""
        known = self._known.get(collection)
        if known is not None and (
            self._points.exclusive or time.monotonic() - known[1] < STAMP_AGE_S
        ):
            return known[0]
        return (await self._fetch(collection, deadline))[0]

    async def create(
        self,
        collection: str,
        dimension: int,
        chunking: Chunking,
        bm25: Bm25,
        deadline: Deadline,
    ) -> Stamp:
        """Stamps a collection just made; one that has a stamp keeps it."""
        new = Stamp(None, chunking, dimension, bm25, SCHEMA_VERSION, time.time_ns())
        await self._points.swap(collection, _point(new, 1), None, deadline)
        return (await self._fetch(collection, deadline))[0]

    async def claim(self, collection: str, model: Model, deadline: Deadline) -> Stamp:
        """Sets the model at the first write. Raises ServiceError MODEL_MISMATCH on another."""
        while True:
            stamp, seq = await self._fetch(collection, deadline)
            if stamp.dimension != model.dimension:
                raise _wrong_dimension(collection, stamp, model)
            if stamp.model is not None:
                check_model(collection, stamp, model.fingerprint)
                return stamp
            # Lost to another writer of the stamp: look again, bounded by the deadline.
            claimed = replace(stamp, model=model, revision=time.time_ns())
            await self._points.swap(collection, _point(claimed, seq + 1), seq, deadline)

    async def bump(self, collection: str) -> None:
        """Gives the content a new revision, durably. Calls at the same time share a write."""
        bumps = self._bumps.setdefault(collection, _Bumps())
        bumps.asked += 1
        ticket = bumps.asked
        async with bumps.writing:
            if bumps.done >= ticket:
                return  # one that began after this call has covered it
            covered = bumps.asked
            # Not a counter, on which two gateways would have to agree: nanoseconds differ.
            revision = time.time_ns()
            await self._points.set_payload(
                collection,
                ids.STAMP_ID,
                {"revision": revision},
                Deadline.after(REVISION_TIMEOUT_S),
            )
            bumps.done = covered
            known = self._known.get(collection)
            if known is not None:
                self._known[collection] = (replace(known[0], revision=revision), known[1])

    async def _fetch(self, collection: str, deadline: Deadline) -> tuple[Stamp, int]:
        """The stamp as stored, and its `seq`.

        Raises ServiceError VECTOR_DB_UNAVAILABLE when another version of this program
        wrote the collection in a way this one does not read.
        """
        asked_s = time.monotonic()
        found = await self._points.retrieve(collection, [ids.STAMP_ID], deadline)
        if not found:
            raise no_collection(collection)
        schema = found[0].payload["schema_version"]
        if schema != SCHEMA_VERSION:
            raise ServiceError(
                Reason.VECTOR_DB_UNAVAILABLE,
                f"The collection '{collection}' has schema version {schema}; "
                f"this program reads {SCHEMA_VERSION}. Index the documents afresh.",
            )
        stamp = msgspec.convert(found[0].payload, Stamp)
        self._known[collection] = (stamp, asked_s)
        return stamp, found[0].payload["seq"]


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
