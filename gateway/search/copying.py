"""What a rebuild copies: the comparison of two generations, and one document brought over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.search import ids, wire
from gateway.search.points import SLICE_POINTS, SLICE_TIMEOUT_S, Points
from gateway.search.types import Chunking, Target
from gateway.search.versions import RECORD, TOMBSTONE, NewVersion, Record, tombstone
from gateway.search.writing import Writer, contended
from runtime.deadline import Deadline

# A document that changes under the copier is read again this often.
READS: Final = 8


@dataclass(frozen=True, slots=True)
class Build:
    """A next generation in the making. home: address of the live one it is made from.

    chunking: the default of the live one.
    """

    collection: str
    job_id: str
    number: int
    home: str
    chunking: Chunking
    target: Target


@dataclass(frozen=True, slots=True)
class Compared:
    """One document in two generations. live: there is one, in the live generation."""

    document_id: str
    live: bool
    differs: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """A record as the comparison sees it."""

    id: str
    document_id: str
    seq: int
    live: bool


_END: Final = _Seen("~", "", 0, False)  # after every id
# Makes the new version of a record from its source text.
Copy = Callable[[Record, str], Awaitable[NewVersion]]


class Copier:
    """Compares, and copies record after record."""

    def __init__(self, points: Points, writer: Writer) -> None:
        self._points = points
        self._writer = writer

    async def total(self, build: Build, deadline: Deadline) -> int:
        """How many documents the live generation has."""
        documents = wire.Selection((wire.Match("kind", RECORD),))
        return await self._points.count(build.home, documents, deadline)

    async def compare(self, build: Build) -> AsyncIterator[Compared]:
        """Every document of either generation, deleted ones too, in one comparison.

        Two scrolls in the order of the points' ids. What changes meanwhile may seem to differ.
        """
        ours, theirs = self._scroll(build.home), self._scroll(build.target.at)
        mine, other = await anext(ours, _END), await anext(theirs, _END)
        while not (mine is _END and other is _END):
            if mine.id == other.id:
                yield Compared(mine.document_id, mine.live, mine.seq != other.seq)
                mine, other = await anext(ours, _END), await anext(theirs, _END)
            elif mine.id < other.id:
                yield Compared(mine.document_id, mine.live, mine.live)
                mine = await anext(ours, _END)
            else:
                # Deleted from the live one so long ago that its tombstone was swept.
                yield Compared(other.document_id, False, other.live)
                other = await anext(theirs, _END)

    async def _scroll(self, address: str) -> AsyncIterator[_Seen]:
        start_id: str | None = None
        while True:
            part = await self._points.scroll(
                address,
                wire.Selection((wire.AnyOf("kind", (RECORD, TOMBSTONE)),)),
                SLICE_POINTS,
                Deadline.after(SLICE_TIMEOUT_S),
                start_id=start_id,
                fields=["kind", "document_id", "seq"],
            )
            for point in part.points:
                payload = point.payload
                live = payload["kind"] == RECORD
                yield _Seen(point.id, payload["document_id"], payload["seq"], live)
            start_id = part.next_id
            if start_id is None:
                return

    async def level(
        self, build: Build, document_id: str, prepare: Copy, deadline: Deadline
    ) -> bool:
        """Brings the next generation up to the live one; whether there was anything to do.

        prepare: makes the new version of a record from its source text.
        """
        for _ in range(READS):
            # In this order: whatever the next one has, the live one had before.
            copy = await self._writer.read(build.target.at, document_id, deadline)
            original = await self._writer.read(build.home, document_id, deadline)
            if original is None:
                if copy is not None and copy.live:
                    # Below whatever a writer brings who writes the document again just now.
                    grave = msgspec.structs.replace(tombstone(copy, copy.write), seq=copy.seq + 1)
                    await self._writer.follow(build.target.at, grave, None, deadline)
                    return True
                return False
            if copy is not None and copy.seq >= original.seq:
                return False
            if not original.live:
                await self._writer.follow(build.target.at, original, None, deadline)
                return True
            text = await self._source(build.home, original, deadline)
            if text is not None:
                new = await prepare(original, text)
                await self._writer.follow(build.target.at, original, new, deadline)
                return True
            # It was replaced between the two reads.
        raise contended()

    async def _source(self, address: str, record: Record, deadline: Deadline) -> str | None:
        point_id = ids.source_id(record.document_id, record.version)
        found = await self._points.retrieve(address, [point_id], deadline, fields=["text"])
        return found[0].payload["text"] if found else None

    async def optimize(self, build: Build, deadline: Deadline) -> None:
        """Has the next generation answer as fast as it can from its first question on."""
        await self._points.optimize(build.target.at, deadline)
