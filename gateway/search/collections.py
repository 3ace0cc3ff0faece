"""Collections: made at the first write, listed, deleted."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Final

from gateway.search import ids, wire
from gateway.search.building import Builds
from gateway.search.plan import Plan
from gateway.search.points import Points, at
from gateway.search.stamps import Stamps
from gateway.search.types import SCHEMA_VERSION, Chunking, CollectionSummary, Model, Stamp
from gateway.search.versions import CHUNK, RECORD
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

DEFAULT_CHUNKING: Final = Chunking(chunk_size=512, overlap=50)


class Collections:
    """The collections of a store; the default one is always there."""

    def __init__(self, points: Points, stamps: Stamps, builds: Builds, plan: Plan) -> None:
        self._points = points
        self._stamps = stamps
        self._builds = builds
        self._plan = plan
        # So that two first writes at once do not make more collections than there may be.
        self._making = asyncio.Lock()

    async def make(
        self, collection: str, dimension: int, chunking: Chunking, deadline: Deadline
    ) -> Stamp:
        """The stamp of a collection that is there now; one that was there keeps its own."""
        await self._points.create(collection, self._plan.config(dimension), deadline)
        generation = (await self._points.generations(collection, deadline)).live
        born_at = time.time_ns()
        new = Stamp(
            None,
            chunking,
            dimension,
            self._plan.bm25,
            SCHEMA_VERSION,
            born_at,
            generation=generation,
            newest=generation,
            born_at=born_at,
        )
        address = at(collection, generation)
        await self._stamps.put(address, new, deadline)
        own = ["generation"]
        found = await self._points.retrieve(address, [ids.STAMP_ID], deadline, fields=own)
        if found and "generation" not in found[0].payload:
            # Stamped by a version of this program that did not number generations.
            number = {"generation": generation, "newest": generation}
            await self._points.set_payload(address, ids.STAMP_ID, number, deadline)
            self._stamps.forget(collection)
        return await self._stamps.fresh(collection, deadline)

    async def ensure(
        self, collection: str, model: Model, chunking: Chunking | None, deadline: Deadline
    ) -> Stamp:
        """The stamp of the collection, made for `model` if it is not there, or holds nothing.

        chunking: of a collection that is made; None takes the usual one.
        Raises ServiceError MODEL_MISMATCH when it is another model's, INVALID_ARGUMENT when
        there are as many collections as there may be.
        """
        try:
            return await self._stamps.claim(collection, model, deadline)
        except ServiceError as error:
            if error.reason is not Reason.COLLECTION_NOT_FOUND:
                raise
        async with self._making:
            there = await self._points.collections(deadline)
            if collection not in there and len(there) >= self._plan.most_collections:
                raise ServiceError(
                    Reason.INVALID_ARGUMENT,
                    f"There are {len(there)} collections already, and at most "
                    f"{self._plan.most_collections} (MAX_COLLECTIONS). Delete one first.",
                    field="collection",
                )
            await self.make(collection, model.dimension, chunking or DEFAULT_CHUNKING, deadline)
        return await self._stamps.claim(collection, model, deadline)

    async def summaries(self, deadline: Deadline) -> list[CollectionSummary]:
        """All collections, by name."""
        found = []
        for name in await self._points.collections(deadline):
            try:
                found.append(await self._summary(name, deadline))
            except ServiceError as error:
                # Deleted meanwhile, or not stamped yet.
                if error.reason is not Reason.COLLECTION_NOT_FOUND:
                    raise
        return found

    async def _summary(self, name: str, deadline: Deadline) -> CollectionSummary:
        stamp = await self._stamps.fresh(name, deadline)
        address = at(name, stamp.generation)
        documents, chunks = [
            await self._points.count(address, wire.Selection((wire.Match("kind", kind),)), deadline)
            for kind in (RECORD, CHUNK)
        ]
        chunking = stamp.chunking
        return CollectionSummary(
            name,
            stamp.model,
            stamp.dimension,
            chunking.chunk_size,
            chunking.overlap,
            documents,
            chunks,
        )

    async def delete(self, collection: str, deadline: Deadline) -> None:
        """Deletes the collection; the default one is empty and unstamped at once instead.

        Raises ServiceError COLLECTION_NOT_FOUND.
        """
        if collection != self._plan.collection:
            await self._points.drop(collection, deadline)
            self._stamps.forget(collection)
            return
        await self._builds.empty(collection, str(uuid.uuid4()), deadline)
        there = await self._points.generations(collection, deadline)
        for number in there.others:
            if number < there.live:
                await self._points.drop_generation(collection, number, deadline)
