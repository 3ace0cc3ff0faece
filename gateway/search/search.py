"""The store as the rest of the gateway sees it."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.search.building import Builds
from gateway.search.collections import DEFAULT_CHUNKING, Collections
from gateway.search.copying import Copier
from gateway.search.documents import Documents
from gateway.search.embedded import EmbeddedPoints
from gateway.search.filters import Filter
from gateway.search.passages import Passages, Question
from gateway.search.plan import Plan
from gateway.search.points import Points, at, unavailable
from gateway.search.records import Records, Status
from gateway.search.retirement import Retirement
from gateway.search.settings import StoreSettings
from gateway.search.stamps import Stamps, check_model
from gateway.search.types import (
    Chunking,
    CollectionSummary,
    Document,
    Hit,
    Mode,
    Model,
    Page,
    Stamp,
)
from gateway.search.upkeep import Upkeep
from gateway.search.versions import Prepare, Record
from gateway.search.writing import Writer
from runtime.deadline import Deadline

log = logging.getLogger(__name__)

PING_TIMEOUT_S: Final = 2.0


class Search:
    """Passages by nearness, and the documents they come from.

    Every call raises ServiceError VECTOR_DB_UNAVAILABLE, DEADLINE_EXCEEDED or
    COLLECTION_NOT_FOUND as `points.Points` says.
    """

    def __init__(self, points: Points, plan: Plan) -> None:
        self._points = points
        self._plan = plan
        self._stamps = Stamps(points)
        self._leftovers = asyncio.Event()
        writer = Writer(points, self._stamps.bump, self._leftovers.set)
        self._records = Records(points, self._stamps, writer)
        # What a rebuild needs of the store.
        self.builds = Builds(points, self._stamps, plan)
        self.copier = Copier(points, writer)
        self._collections = Collections(points, self._stamps, self.builds, plan)
        self._passages = Passages(points, plan, self._leftovers.set)
        self._documents = Documents(points, self._stamps, self._records, plan)
        retirement = Retirement(points, self._stamps, self.builds, plan.keep_s)
        self._upkeep = Upkeep(points, self._stamps, retirement, self._prepare, self._leftovers)

    @property
    def broken(self) -> bool:
        """Whether this gateway's own store process cannot be brought back."""
        return self._points.broken

    @property
    def fault(self) -> str | None:
        """Why the store cannot be used yet, for people; None once it could."""
        return self._upkeep.fault

    async def start(self) -> None:
        """Opens the store and makes the default collection.

        Raises ServiceError when the embedded store cannot be opened, `FolderInUse` (one of
        them) when another process holds it, ResourceTaken when its folder cannot be written.
        """
        await self._points.start()
        await self._upkeep.start()

    async def _prepare(self, deadline: Deadline) -> None:
        """Makes what must be there: the default collection and its stamp."""
        plan = self._plan
        stamp = await self._collections.make(
            plan.collection, plan.dimension, DEFAULT_CHUNKING, deadline
        )
        if stamp.dimension != plan.dimension:
            log.warning(
                "The collection '%s' holds vectors of length %d; VECTOR_DIM is %d and only "
                "counts for new ones.",
                plan.collection,
                stamp.dimension,
                plan.dimension,
            )
        for name in await self._points.collections(deadline):
            stamp_there = await self._stamps.of_generation(name, deadline)
            # A crash may have come between a write and its revision, or before the stamp.
            if stamp_there is not None:
                # Its indexes become those that filters are written for.
                now = await self._collections.make(
                    name, stamp_there.dimension, stamp_there.chunking, deadline
                )
                await self._stamps.bump(at(name, now.generation))

    async def aclose(self) -> None:
        """Finishes the writes under way, flushes, and lets go of the store."""
        await self._upkeep.aclose()
        await self._records.aclose()
        await self._points.aclose()

    async def ping(self) -> None:
        """Returns when the store answers and the default collection is there, within 2 s."""
        if self.fault is not None:
            raise unavailable(self.fault)
        await self._points.ping(Deadline.after(PING_TIMEOUT_S))

    async def stamp(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Stamp:
        """What the collection was made with; fresh: as stored now, and not up to 1 s ago.

        Raises ServiceError COLLECTION_NOT_FOUND.
        """
        look = self._stamps.fresh if fresh else self._stamps.read
        return await look(collection, deadline)

    async def ensure(
        self, collection: str, model: Model, chunking: Chunking | None, deadline: Deadline
    ) -> Stamp:
        """The stamp of the collection, made for `model` if it is not there, or holds nothing.

        chunking: of a collection that is made; None takes 512 characters, 50 of them shared.
        Raises ServiceError MODEL_MISMATCH when it is another model's, INVALID_ARGUMENT when
        there are MAX_COLLECTIONS already.
        """
        return await self._collections.ensure(collection, model, chunking, deadline)

    async def claim(self, collection: str, model: Model, deadline: Deadline) -> Stamp:
        """The stamp, made out to `model` if it named none.

        Raises ServiceError COLLECTION_NOT_FOUND, and MODEL_MISMATCH when it names another.
        """
        stamp = await self._stamps.read(collection, deadline)
        if stamp.model is None or stamp.dimension != model.dimension:
            return await self._stamps.claim(collection, model, deadline)
        check_model(collection, stamp, model.fingerprint)
        return stamp

    async def collections(self, deadline: Deadline) -> list[CollectionSummary]:
        """All collections, by name."""
        return await self._collections.summaries(deadline)

    async def delete_collection(self, collection: str, deadline: Deadline) -> None:
        """Deletes a collection with all it holds; the default one comes back empty at once.

        Raises ServiceError COLLECTION_NOT_FOUND.
        """
        await self._collections.delete(collection, deadline)

    async def nearest(
        self,
        collection: str,
        *,
        text: str,
        vector: npt.NDArray[np.float32] | None,
        mode: Mode,
        filter: Filter | None,  # noqa: A002
        limit: int,
        deadline: Deadline,
        fingerprint: str | None = None,
        stamp: Stamp | None = None,
    ) -> list[Hit]:
        """Passages that pass `filter`, best first, at most `limit`.

        vector: float32 [dimension]. Mode sparse ignores it; hybrid without one is sparse.
        fingerprint: of the model that made the vector, where the caller has not compared
            it with the stamp's; another one is MODEL_MISMATCH.
        stamp: what the caller read before it made the vector: the search is in that
            generation, though another has become the live one. None: the live one.
        """
        question = Question(text, vector, mode, filter, limit, fingerprint)
        return await self._stamps.in_generation(
            collection,
            deadline,
            lambda known: self._passages.nearest(collection, known, question, deadline),
            stamp,
        )

    async def list_documents(
        self,
        collection: str,
        *,
        limit: int,
        cursor: str | None,
        filter: Filter | None,  # noqa: A002
        deadline: Deadline,
    ) -> Page:
        """One page. A document that is there throughout is on exactly one of the pages.

        Raises ServiceError INVALID_ARGUMENT for a cursor that no page gave.
        """
        return await self._documents.page(
            collection, limit=limit, cursor=cursor, filter=filter, deadline=deadline
        )

    async def get_document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> Document | None:
        """The document with its source text and chunks; None if there is none."""
        return await self._documents.document(collection, document_id, deadline)

    async def delete_documents(
        self,
        collection: str,
        filter: Filter | None,  # noqa: A002
        deadline: Deadline,
    ) -> tuple[int, int]:
        """Deletes the documents that pass `filter`: how many, and how many chunks they had.

        Those deleted before an error stay deleted; out of time it stops between documents.
        """
        return await self._documents.delete_matching(collection, filter, deadline)

    async def delete_document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> int | None:
        """Deletes the document; the number of its chunks, None if there was none.

        It is gone from every later search once this returns, and that is durable.
        """
        return await self._records.delete(collection, document_id, deadline)

    async def record(self, address: str, document_id: str, deadline: Deadline) -> Record | None:
        """What is stored of the document in a generation; None if there is none.

        address: `Target.at`, or the collection's name for the live one.
        """
        record = await self._records.read(address, document_id, deadline)
        return record if record is not None and record.live else None

    async def vectors(
        self, address: str, record: Record, deadline: Deadline
    ) -> dict[str, tuple[bytes, bool]]:
        """What the record's version has embedded: hash of the text → (vector, truncated).

        address: where the record was read.
        """
        return await self._records.vectors(address, record, deadline)

    async def put_document(
        self, collection: str, document_id: str, prepare: Prepare, deadline: Deadline
    ) -> Status:
        """Writes the document in place of the one before; durable once this returns.

        prepare: makes the version for one generation; called once for each that the
            document is written to, before it is written there: the live one, and one that
            is being built. It may be called after the document was written to the other.
        Cancelled or out of time, it leaves the old version or the new one.
        """
        return await self._records.put(collection, document_id, prepare, deadline)

    async def settle(
        self, collection: str, record: Record, prepare: Prepare, deadline: Deadline
    ) -> bool:
        """Whether a document that is found as it should be can be called written.

        The write that left `record` may have been broken off before it reached the
        generation that is being built; it is brought there, by `prepare`, if need be.
        False: the document is another by now.
        """
        return await self._records.settle(collection, record, prepare, deadline)


def open_search(settings: StoreSettings) -> Search:
    """The store that the settings name; `start` opens it."""
    return Search(_adapter(settings), Plan.of(settings))


def _adapter(settings: StoreSettings) -> Points:
    if settings.qdrant_url is None:
        return EmbeddedPoints(
            settings.data_dir,
            tuning=settings.tuning(),
            optimize_timeout_s=settings.optimize_timeout_seconds,
        )
    from gateway.search.server import ServerPoints, connect

    key = settings.qdrant_api_key
    return ServerPoints(
        connect(
            settings.qdrant_url,
            api_key=None if key is None else key.get_secret_value(),
            grpc_port=settings.qdrant_grpc_port,
        ),
        settings.tuning(),
    )
