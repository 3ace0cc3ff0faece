"""One version of a document: its record, its source text and its chunks, as points."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from gateway.search import ids, wire
from gateway.search.types import Chunk, Chunking, Document, DocumentSummary, Target

RECORD: Final = "record"
TOMBSTONE: Final = "tombstone"
CHUNK: Final = "chunk"
SOURCE: Final = "source"

# Points handed to the adapter at once; bounds what a large document takes beside itself.
BATCH_POINTS: Final = 64


class Record(msgspec.Struct, frozen=True):
    """What the record point holds. Lists of documents need nothing else.

    version: names the points that count; every copy has one of its own.
    seq: see `seq_after`; a copy in another generation keeps it.
    write: id of the write that made it; a copy in another generation keeps it, too.
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
    write: str = ""

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


def seq_after(current: Record | None) -> int:
    """The `seq` of what takes the place of `current`: microseconds since the epoch, and more.

    Not a counter from 1: a document that comes back after its tombstone was swept must have
    a higher one than any copy of what it was. Exact as a 64-bit float until the year 2255.
    """
    return max(time.time_ns() // 1000, 0 if current is None else current.seq + 1)


def new_record(new: NewVersion, current: Record | None, write: str) -> Record:
    """The record of a version that is to take the place of `current`."""
    now = datetime.now(UTC)
    return _described(
        new,
        Record(
            kind=RECORD,
            document_id=new.document_id,
            version=str(uuid.uuid4()),
            seq=seq_after(current),
            written_at=int(now.timestamp()),
            indexed_at=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            write=write,
        ),
    )


def copied_record(original: Record, new: NewVersion | None) -> Record:
    """The record of `original`'s document in another generation; of a tombstone without `new`.

    The version is a fresh one: a writer and a copier may bring the same document at the same
    time, cut in two ways, and the one that comes too late removes its own points alone.
    """
    copy = msgspec.structs.replace(original, version=str(uuid.uuid4()), written_at=int(time.time()))
    return copy if new is None else _described(new, copy)


def tombstone(current: Record, write: str) -> Record:
    """What takes the place of a document that is deleted."""
    return Record(
        TOMBSTONE,
        current.document_id,
        str(uuid.uuid4()),
        seq_after(current),
        int(time.time()),
        write=write,
    )


def _described(new: NewVersion, record: Record) -> Record:
    return msgspec.structs.replace(
        record,
        chunks=len(new.chunks),
        truncated=sum(chunk.truncated for chunk in new.chunks),
        metadata=new.metadata,
        content_sha256=new.content_sha256,
        chunk_size=new.chunking.chunk_size,
        overlap=new.chunking.overlap,
    )


def points_of(new: NewVersion, record: Record) -> Iterator[list[wire.Point]]:
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


def document_of(record: Record, found: Sequence[wire.Point]) -> Document:
    """The document, from its record and the points of its version."""
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
