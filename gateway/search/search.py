"""The store as the rest of the gateway sees it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.search import wire
from gateway.search.conditions import selection
from gateway.search.embedded import EmbeddedPoints
from gateway.search.filters import Filter
from gateway.search.plan import Plan
from gateway.search.points import Points, unavailable
from gateway.search.records import (
    RECORD,
    SUMMARY_FIELDS,
    Prepare,
    Record,
    Records,
    Status,
)
from gateway.search.settings import StoreSettings
from gateway.search.stamps import Stamps, check_model
from gateway.search.types import (
    Chunking,
    Document,
    Hit,
    Mode,
    Model,
    Page,
    Stamp,
    Target,
)
from gateway.search.upkeep import Upkeep
from runtime.deadline import Deadline, expired
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)

DEFAULT_CHUNKING: Final = Chunking(chunk_size=512, overlap=50)
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
        self._records = Records(points, self._stamps.bump, self._leftovers.set)
        self._searching = asyncio.Semaphore(plan.concurrency)
        self._upkeep = Upkeep(points, plan.collection, self._prepare, self._leftovers)

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
        await self._points.create(plan.collection, plan.config(), deadline)
        stamp = await self._stamps.create(
            plan.collection, plan.dimension, DEFAULT_CHUNKING, plan.bm25, deadline
        )
        if stamp.dimension != plan.dimension:
            log.warning(
                "The collection '%s' holds vectors of length %d; VECTOR_DIM is %d and only "
                "counts for new ones.",
                plan.collection,
                stamp.dimension,
                plan.dimension,
            )
        # A crash may have come between a write and its revision.
        await self._stamps.bump(plan.collection)

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

    async def stamp(self, collection: str, deadline: Deadline) -> Stamp:
        """What the collection was made with. Raises ServiceError COLLECTION_NOT_FOUND."""
        return await self._stamps.read(collection, deadline)

    async def claim(self, collection: str, model: Model, deadline: Deadline) -> Stamp:
        """The stamp, made out to `model` if it named none.

        Raises ServiceError MODEL_MISMATCH when it names another.
        """
        stamp = await self._stamps.read(collection, deadline)
        if stamp.model is None or stamp.dimension != model.dimension:
            return await self._stamps.claim(collection, model, deadline)
        check_model(collection, stamp, model.fingerprint)
        return stamp

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
    ) -> list[Hit]:
        """Passages that pass `filter`, best first, at most `limit`.

        vector: float32 [dimension]. Mode sparse ignores it; hybrid without one is sparse.
        fingerprint: of the model that made the vector, where the caller has not compared
            it with the stamp's; another one is MODEL_MISMATCH.
        """
        if mode == "sparse":
            vector = None
        elif mode == "dense" and vector is None:
            raise ValueError("mode dense needs a vector")
        if vector is not None:
            stamp = await self._stamps.read(collection, deadline)
            _check_vector(collection, stamp, vector, fingerprint)
        query = wire.Query(
            None if vector is None else np.ascontiguousarray(vector, "<f4").tobytes(),
            None if mode == "dense" else text,
            selection(filter, indexes=self._plan.indexes),
            limit,
            max(limit, self._plan.prefetch),
            self._plan.fusion_k,
        )
        async with _turn(self._searching, deadline):
            found = await self._points.query(collection, query, deadline)
            if found.stale:
                # A document was replaced meanwhile, or a crash left chunks behind. Once
                # more without those: the passages they kept out may be the new ones.
                self._leftovers.set()
                without = msgspec.structs.replace(query.selection, without=tuple(found.stale))
                query = msgspec.structs.replace(query, selection=without)
                found = await self._points.query(collection, query, deadline)
        return [
            Hit(
                f"{one.document_id}#{one.ordinal}",
                one.document_id,
                one.ordinal,
                one.text,
                one.score,
                one.dense,
                one.sparse,
                one.metadata,
            )
            for one in found.passages
        ]

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
        part = await self._points.scroll(
            collection,
            selection(filter, wire.Match("kind", RECORD), indexes=self._plan.indexes),
            limit,
            deadline,
            start_id=None if cursor is None else _start_id(cursor),
            fields=SUMMARY_FIELDS,
        )
        records = [msgspec.convert(point.payload, Record) for point in part.points]
        return Page(tuple(record.summary() for record in records), part.next_id)

    async def get_document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> Document | None:
        """The document with its source text and chunks; None if there is none."""
        return await self._records.document(collection, document_id, deadline)

    async def delete_document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> int | None:
        """Deletes the document; the number of its chunks, None if there was none.

        It is gone from every later search once this returns, and that is durable.
        """
        deadline.share_s()
        return await self._records.delete(collection, document_id)

    async def record(self, collection: str, document_id: str, deadline: Deadline) -> Record | None:
        """What is stored of the document; None if there is none."""
        record = await self._records.read(collection, document_id, deadline)
        return record if record is not None and record.live else None

    async def vectors(
        self, collection: str, record: Record, deadline: Deadline
    ) -> dict[str, tuple[bytes, bool]]:
        """What the record's version has embedded: hash of the text → (vector, truncated)."""
        return await self._records.vectors(collection, record, deadline)

    async def put_document(
        self, collection: str, document_id: str, prepare: Prepare, deadline: Deadline
    ) -> Status:
        """Writes the document in place of the one before; durable once this returns.

        prepare: makes the version for one generation; called once for each that the
            document is written to, before anything is written to it.
        The writing that has begun is finished, whatever becomes of the caller.
        """
        stamp = await self._stamps.read(collection, deadline)
        model = stamp.model or Model("", "", stamp.dimension)
        new = await prepare(Target(collection, model, stamp.chunking))
        return await self._records.put(collection, new)


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
        )
    )


class _turn:
    """`async with`: a place among those that search, waited for no longer than the deadline."""

    def __init__(self, places: asyncio.Semaphore, deadline: Deadline) -> None:
        self._places = places
        self._deadline = deadline

    async def __aenter__(self) -> None:
        if not self._places.locked():
            await self._places.acquire()  # does not wait, and so needs no timer
            return
        try:
            async with asyncio.timeout(self._deadline.share_s()):
                await self._places.acquire()
        except TimeoutError:
            raise expired() from None

    async def __aexit__(self, *_: object) -> None:
        self._places.release()


def _check_vector(
    collection: str, stamp: Stamp, vector: npt.NDArray[np.float32], fingerprint: str | None
) -> None:
    if fingerprint is not None:
        check_model(collection, stamp, fingerprint)
    if vector.shape != (stamp.dimension,):
        raise ServiceError(
            Reason.MODEL_MISMATCH,
            f"The collection '{collection}' holds vectors of length {stamp.dimension}, "
            f"the question's has length {vector.size}.",
            collection=collection,
        )


def _start_id(cursor: str) -> str:
    try:
        return str(uuid.UUID(cursor))
    except ValueError:
        raise ServiceError(
            Reason.INVALID_ARGUMENT, "Not a cursor of this service.", field="cursor"
        ) from None
