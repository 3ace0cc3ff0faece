"""The record protocol: a document's record is its commit point.

A document is one record (which version counts), one source text and its chunks. The source
text is a point of its own, because the records of all hits are read in every search, and
reading a record that holds 120 KB of text takes 15 times as long as one that does not.

    write the points of a fresh version → swap the record, if its `seq` is still the one read
    → read it back → (another writer won: start again) → delete the replaced version's points

A crash anywhere leaves exactly one version named by the record; points that no record names
are left out of every search, and swept later (`sweep.py`). A delete swaps in a tombstone,
which keeps `seq` growing, so that a slow writer cannot bring back what it read before.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

import msgspec

from gateway.search import ids, wire
from gateway.search.points import Points, unavailable
from gateway.search.types import Chunk, Chunking, Document, DocumentSummary, Target
from runtime.deadline import Deadline
from runtime.errors import ServiceError

log = logging.getLogger(__name__)

T = TypeVar("T")
Status = Literal["added", "replaced"]

RECORD: Final = "record"
TOMBSTONE: Final = "tombstone"
CHUNK: Final = "chunk"
SOURCE: Final = "source"

# A document of 2,000,000 characters takes seconds. It must be far below
# `sweep.ORPHAN_AGE_S`: points are not swept while their record may still come.
WRITE_TIMEOUT_S: Final = 120.0
# Each attempt that loses means that another writer of the same document won.
ATTEMPTS: Final = 16
# Points handed to the adapter at once; bounds what a large document takes beside itself.
BATCH_POINTS: Final = 64
# A document that changes under the reader is read again this often.
READS: Final = 5


class Record(msgspec.Struct, frozen=True):
    """What the record point holds. Lists of documents need nothing else.

    seq: grows with every swap; version: names the points that count.
    truncated: chunks that were longer than the embedding model reads.
    written_at: seconds since the epoch.
    """

    kind: Literal["record", "tombstone"]
    document_id: str
    version: str
    seq: int
    written_at: int
    chunks: int = 0
    truncated: int = 0
    metadata: dict[str, Any] = {}
    content_sha256: str = ""
    chunk_size: int = 0
    overlap: int = 0
    indexed_at: str = ""

    @property
    def live(self) -> bool:
        """Whether there is a document, rather than the memory of one."""
        return self.kind == RECORD

    def summary(self) -> DocumentSummary:
        """The record as callers see it."""
        return DocumentSummary(
            self.document_id, self.chunks, self.metadata, self.indexed_at, self.content_sha256
        )


SUMMARY_FIELDS: Final = [*Record.__struct_fields__]


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk to write. vector: little-endian float32; sha256: of the text embedded."""

    text: str
    sha256: str
    vector: bytes
    truncated: bool


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A document to write, cut and embedded."""

    document_id: str
    text: str
    metadata: dict[str, Any]
    content_sha256: str
    chunking: Chunking
    chunks: Sequence[NewChunk]


# Makes the version of a document for one generation.
Prepare = Callable[[Target], Awaitable[NewVersion]]


class Records:
    """Documents by the record protocol, on either adapter.

    changed: gives the collection a new revision, durably.
    leftovers: called when points were left behind that no record names.
    """

    def __init__(
        self,
        points: Points,
        changed: Callable[[str], Awaitable[None]],
        leftovers: Callable[[], None],
    ) -> None:
        self._points = points
        self._changed = changed
        self._leftovers = leftovers
        self._writing: set[asyncio.Task[Any]] = set()

    async def aclose(self) -> None:
        """Waits for the writes under way: one that has begun is finished."""
        if self._writing:
            await asyncio.wait(self._writing)

    async def read(self, collection: str, document_id: str, deadline: Deadline) -> Record | None:
        """The record or tombstone; None if there is neither."""
        found = await self._points.retrieve(collection, [ids.record_id(document_id)], deadline)
        return msgspec.convert(found[0].payload, Record) if found else None

    async def put(self, collection: str, new: NewVersion) -> Status:
        """Writes the document; durable once this returns.

        Goes on to its end when the caller is cancelled, so that it is never left half done.
        """
        return await self._finish(self._put(collection, new))

    async def delete(self, collection: str, document_id: str) -> int | None:
        """Deletes the document; the number of its chunks, None if there was none."""
        return await self._finish(self._delete(collection, document_id))

    async def _finish(self, write: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(write)
        self._writing.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Its caller hears of it unless it left; either way points may lie about.
            self._leftovers()

    async def _put(self, collection: str, new: NewVersion) -> Status:
        deadline = Deadline.after(WRITE_TIMEOUT_S)
        for _ in range(ATTEMPTS):
            current = await self.read(collection, new.document_id, deadline)
            record = _record(new, current)
            for points in _points(new, record):
                await self._points.upsert(collection, points, deadline)
            if await self._swap(collection, record, current, deadline):
                if current is None or not current.live:
                    return "added"
                await self._remove(collection, current, deadline)
                return "replaced"
            # The record names another version now, and swaps from an older `seq` fail:
            # this version can never become the one.
            await self._remove(collection, record, deadline)
        raise _contended()

    async def _delete(self, collection: str, document_id: str) -> int | None:
        deadline = Deadline.after(WRITE_TIMEOUT_S)
        for _ in range(ATTEMPTS):
            current = await self.read(collection, document_id, deadline)
            if current is None or not current.live:
                return None
            tombstone = Record(
                TOMBSTONE, document_id, str(uuid.uuid4()), current.seq + 1, int(time.time())
            )
            if await self._swap(collection, tombstone, current, deadline):
                await self._remove(collection, current, deadline)
                self._leftovers()  # the tombstone itself, in a while
                return current.chunks
        raise _contended()

    async def _swap(
        self, collection: str, record: Record, current: Record | None, deadline: Deadline
    ) -> bool:
        """Whether `record` took the place of `current`."""
        point_id = ids.record_id(record.document_id)
        point = wire.Point(point_id, msgspec.structs.asdict(record))
        seq = None if current is None else current.seq
        await self._points.swap(collection, point, seq, deadline)
        after = await self.read(collection, record.document_id, deadline)
        if after is None or after.version != record.version:
            # Perhaps it did, and was replaced before it was read: then nobody else knows of
            # the points of `current`.
            self._leftovers()
            return False
        await self._changed(collection)
        return True

    async def _remove(self, collection: str, record: Record, deadline: Deadline) -> None:
        """Deletes the points of a version that no longer counts; the sweep would, too."""
        points = ids.version_ids(record.document_id, record.version, record.chunks)
        try:
            await self._points.delete(collection, wire.Selection(ids=tuple(points)), deadline)
        except ServiceError as error:
            log.warning("Points of a replaced version are left to the sweep: %s", error)
            self._leftovers()

    async def vectors(
        self, collection: str, record: Record, deadline: Deadline
    ) -> dict[str, tuple[bytes, bool]]:
        """What the record's version has embedded: hash of the text → (vector, truncated)."""
        found = await self._points.retrieve(
            collection,
            [
                ids.chunk_id(record.document_id, record.version, ordinal)
                for ordinal in range(record.chunks)
            ],
            deadline,
            fields=["sha256", "truncated"],
            vectors=True,
        )
        return {
            point.payload["sha256"]: (point.dense, point.payload["truncated"])
            for point in found
            if point.dense is not None
        }

    async def document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> Document | None:
        """The document with its source text and chunks; None if there is none."""
        for _ in range(READS):
            record = await self.read(collection, document_id, deadline)
            if record is None or not record.live:
                return None
            wanted = ids.version_ids(document_id, record.version, record.chunks)
            found = await self._points.retrieve(
                collection, wanted, deadline, fields=["text", "ordinal", "kind"]
            )
            if len(found) == len(wanted):
                return _document(record, found)
            # It was replaced between the two reads.
        raise _contended()


def _record(new: NewVersion, current: Record | None) -> Record:
    now = datetime.now(UTC)
    return Record(
        kind=RECORD,
        document_id=new.document_id,
        version=str(uuid.uuid4()),
        seq=1 if current is None else current.seq + 1,
        written_at=int(now.timestamp()),
        chunks=len(new.chunks),
        truncated=sum(chunk.truncated for chunk in new.chunks),
        metadata=new.metadata,
        content_sha256=new.content_sha256,
        chunk_size=new.chunking.chunk_size,
        overlap=new.chunking.overlap,
        indexed_at=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )


def _points(new: NewVersion, record: Record) -> Iterator[list[wire.Point]]:
    """The points of the version, in batches."""
    common = {
        "document_id": new.document_id,
        "version": record.version,
        "written_at": record.written_at,
    }
    source = {**common, "kind": SOURCE, "text": new.text}
    yield [wire.Point(ids.source_id(new.document_id, record.version), source)]
    for start in range(0, len(new.chunks), BATCH_POINTS):
        yield [
            wire.Point(
                ids.chunk_id(new.document_id, record.version, ordinal),
                {
                    **common,
                    "kind": CHUNK,
                    "ordinal": ordinal,
                    "text": chunk.text,
                    "sha256": chunk.sha256,
                    "truncated": chunk.truncated,
                    "metadata": new.metadata,
                },
                chunk.vector,
                chunk.text,
            )
            for ordinal, chunk in enumerate(new.chunks[start : start + BATCH_POINTS], start)
        ]


def _document(record: Record, found: Sequence[wire.Point]) -> Document:
    source = next(point for point in found if point.payload["kind"] == SOURCE)
    chunks = sorted(
        (point.payload["ordinal"], point.payload["text"])
        for point in found
        if point.payload["kind"] == CHUNK
    )
    return Document(
        id=record.document_id,
        metadata=record.metadata,
        indexed_at=record.indexed_at,
        content_sha256=record.content_sha256,
        text=source.payload["text"],
        chunks=tuple(Chunk(ordinal, text) for ordinal, text in chunks),
    )


def _contended() -> ServiceError:
    return unavailable("Too many writers change this document at once.")
