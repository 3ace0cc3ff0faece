"""The record protocol: a document's record is its commit point, in every generation.

A document is one record (which version counts), one source text and its chunks. The source
text is a point of its own, because the records of all hits are read in every search, and
reading a record that holds 120 KB of text takes 15 times as long as one that does not.

In one generation (`writing.py`):

    write the points of a fresh version → swap the record, if its `seq` is still the one read
    → read it back → (another writer won: start again) → delete the replaced version's points

A crash anywhere leaves exactly one version named by the record; points that no record names
are left out of every search, and swept later (`sweep.py`). A delete swaps in a tombstone,
which keeps `seq` growing, so that a slow writer cannot bring back what it read before.

While the next generation is built beside the live one (`building.py`), a write is:

    1 read the stamp: which generation is live, and which is next
    2 prepare the document for both, before anything is written
    3 write it in the live one, as above: its record has `seq` s there
    4 write its points in the next one, and its record with the same s, if the one there is
      lower (`Points.advance`), and read it back
    5 read the stamp again, from the store: a generation that counts now and does not hold the
      write gets it, from 2 on; only when there is none the write is acknowledged

Why an acknowledged write is in the live generation, whatever happens between two steps:

- *A rebuild is claimed.* If step 5 did not see the claim, step 3 was before it; the copier
  reads all records after it claimed, and so sees this one. If it did, the writer writes.
- *The next generation is named but not there yet* (or not stamped): it does not count. It
  was not there after step 3, so the copier, who starts once it is, sees the record.
- *The switch.* It follows a comparison that found every (id, `seq`) equal. A write committed
  before the copier looked is in both; a later one has seen `next` and is acknowledged only
  after step 4, wherever the switch falls. If the writer knew of no next one and finds another
  live in step 5, it writes there as if it began. A higher `seq` in the next generation means
  that a later write won, if it came through the live one; the next one may be live by now,
  though, and then it may have come before: so the writer starts again there. One that writes
  twice in this way may bring back what somebody deleted in between: both were under way at
  once, and its second write is the later.
- *The rebuild is abandoned*, and its generation dropped: calls to it fail with
  COLLECTION_NOT_FOUND, step 5 finds no next one. Numbers are never used again, so that a
  writer who holds the address of a dropped generation cannot write into a later one, with
  vectors of the wrong model.
- *The collection is deleted*: step 5 fails. Made again, it is told apart by `born_at`, for
  its generations may have the same numbers. The writer looks at that last before it swaps the
  record; if the collection was made again between that look and the swap, step 5 finds it,
  what was written is withdrawn, and the writer begins anew. Only one that dies in that moment
  leaves there what was meant for the old collection.
- *The writer dies* between 3 and 5: it has acknowledged nothing. What it wrote is in the live
  generation; the copier brings it to the next one, unless it has just compared: then it is
  gone with the switch. So what reads as done without being written must be carried through
  as well, before it is acknowledged: the document found `unchanged` (`settle`), the one
  found deleted (`delete`).

A copy has a version of its own: a writer and the copier may bring the same write at the same
time, cut in two ways, and the one that comes too late deletes its own points alone. `write`
tells that they are copies of one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, Literal, TypeVar

from gateway.search import ids, wire
from gateway.search.changes import Change, Changed, Delete, Put, Settle
from gateway.search.points import Points, at, no_collection
from gateway.search.stamps import Stamps
from gateway.search.types import Document, Stamp
from gateway.search.versions import Prepare, Record, document_of
from gateway.search.writing import Writer, contended
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)

T = TypeVar("T")
Status = Literal["added", "replaced"]

# For one step in one generation. A document of 2,000,000 characters takes seconds, but the
# next generation answers no write while it is optimised, which is a minute for 200,000 chunks.
# It must be far below `sweep.ORPHAN_AGE_S`: points are not swept while their record may come.
WRITE_TIMEOUT_S: Final = 300.0
# For looking at the stamp after a write.
LOOK_TIMEOUT_S: Final = 30.0
# Each one more means that a generation came, became the live one or went during the write.
ROUNDS: Final = 8
# A document that changes under the reader is read again this often.
READS: Final = 5


class Records:
    """Documents by the record protocol, on either adapter.

    `address` is a collection's name or that of one generation (`Points`).
    """

    def __init__(self, points: Points, stamps: Stamps, writer: Writer) -> None:
        self._points = points
        self._stamps = stamps
        self._writer = writer
        self._writing: set[asyncio.Task[Any]] = set()

    async def aclose(self) -> None:
        """Waits for the steps under way: one that has begun is finished."""
        if self._writing:
            await asyncio.wait(self._writing)

    async def read(self, address: str, document_id: str, deadline: Deadline) -> Record | None:
        """The record or tombstone; None if there is neither."""
        return await self._writer.read(address, document_id, deadline)

    async def put(
        self, collection: str, document_id: str, prepare: Prepare, deadline: Deadline
    ) -> Status:
        """Writes the document in every generation that counts; durable once this returns."""
        put = Put(self._writer, collection, prepare, self._confirm)
        await self._carry_through(collection, put, deadline)
        return "replaced" if put.replaced else "added"

    async def delete(
        self,
        collection: str,
        document_id: str,
        deadline: Deadline,
        among: wire.Selection | None = None,
    ) -> int | None:
        """Deletes the document; the number of its chunks, None if there was none.

        among: leaves it alone, as if there was none, unless its record is among these.
        """
        delete = Delete(self._writer, document_id, among)
        await self._carry_through(collection, delete, deadline)
        return delete.chunks

    async def settle(
        self, collection: str, record: Record, prepare: Prepare, deadline: Deadline
    ) -> bool:
        """Whether the write that left `record` is in every generation that counts.

        It may have been broken off, and is then carried on: `prepare` is called for the next
        generation alone, where that lacks it. False: the document has changed.
        """
        settle = Settle(self._writer, collection, record, prepare)
        try:
            await self._carry_through(collection, settle, deadline)
        except Changed:
            return False
        return True

    async def _carry_through(self, collection: str, change: Change, deadline: Deadline) -> None:
        """Steps 1 to 5 of the protocol, until no generation lacks the change."""
        holding: set[str] = set()  # generations that hold the change
        passed: set[str] = set()  # those that hold something newer
        committed: set[str] = set()  # those it was written to as the live one
        live, following = await self._generations(collection, deadline, fresh=False)
        for _ in range(ROUNDS):
            home = at(collection, live.generation)
            beside = None if following is None else at(collection, following.generation)
            try:
                await change.prepare(live, deadline)
                if following is not None:
                    await change.prepare(following, deadline)
                now = await self._stamps.read(collection, deadline)
                if (now.born_at, now.generation) == (live.born_at, live.generation):
                    if home not in holding:
                        await self._finish(change.commit(home, Deadline.after(WRITE_TIMEOUT_S)))
                        holding.add(home)
                        committed.add(home)
                    if beside is not None and beside not in holding | passed:
                        follow = change.follow(beside, Deadline.after(WRITE_TIMEOUT_S))
                        (holding if await self._finish(follow) else passed).add(beside)
            except ServiceError as error:
                gone = error.metadata.get("collection")  # a generation, or the collection itself
                if error.reason is not Reason.COLLECTION_NOT_FOUND or gone == collection:
                    raise
                self._stamps.forget(collection)
            # After a commit the time that is left is no reason to leave it half done.
            look = Deadline.after(LOOK_TIMEOUT_S) if committed else deadline
            was = live
            live, following = await self._generations(collection, look, fresh=True)
            if live.born_at != was.born_at:
                await self._withdraw(change, home)
                for known in (holding, passed, committed):
                    known.clear()
            home = at(collection, live.generation)
            if home in holding and (
                following is None or at(collection, following.generation) in holding | passed
            ):
                if home not in committed:
                    await self._stamps.bump(home)  # it was the next one then
                return
        raise contended()

    async def _confirm(self, collection: str, stamp: Stamp, deadline: Deadline) -> None:
        """Raises COLLECTION_NOT_FOUND for a collection that was deleted, or made again since."""
        look = self._stamps.read if self._points.exclusive else self._stamps.fresh
        if (await look(collection, deadline)).born_at != stamp.born_at:
            raise no_collection(at(collection, stamp.generation))

    async def _withdraw(self, change: Change, home: str) -> None:
        try:
            await self._finish(change.withdraw(home, Deadline.after(WRITE_TIMEOUT_S)))
        except ServiceError as error:
            if error.reason is not Reason.COLLECTION_NOT_FOUND:
                raise

    async def _generations(
        self, collection: str, deadline: Deadline, *, fresh: bool
    ) -> tuple[Stamp, Stamp | None]:
        """The stamps of the live generation and of the next one, if that counts."""
        look = self._stamps.fresh if fresh else self._stamps.read
        live = await look(collection, deadline)
        return live, await self._stamps.following(collection, live, deadline)

    async def _finish(self, step: Coroutine[Any, Any, T]) -> T:
        """The step, which goes on to its end when the caller is cancelled."""
        task = asyncio.create_task(step)
        self._writing.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._writer.unattended(task)
            raise

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Its caller hears of it unless it left; either way points may lie about.
            self._writer.leave()

    async def vectors(
        self, address: str, record: Record, deadline: Deadline
    ) -> dict[str, tuple[bytes, bool]]:
        """What the record's version has embedded: hash of the text → (vector, truncated)."""
        found = await self._points.retrieve(
            address,
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

    async def document(self, address: str, document_id: str, deadline: Deadline) -> Document | None:
        """The document with its source text and chunks; None if there is none."""
        for _ in range(READS):
            record = await self.read(address, document_id, deadline)
            if record is None or not record.live:
                return None
            wanted = ids.version_ids(document_id, record.version, record.chunks)
            found = await self._points.retrieve(
                address, wanted, deadline, fields=["text", "ordinal", "kind"]
            )
            if len(found) == len(wanted):
                return document_of(record, found)
            # It was replaced between the two reads.
        raise contended()
