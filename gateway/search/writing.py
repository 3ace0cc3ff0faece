"""Writing one document in one generation: the steps that `records` puts together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from gateway.search import ids, wire
from gateway.search.points import Points, unavailable
from gateway.search.versions import (
    NewVersion,
    Record,
    copied_record,
    new_record,
    points_of,
    tombstone,
)
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)

# Each attempt that loses means that another writer of the same document won.
ATTEMPTS: Final = 16


class Writer:
    """Each step leaves the generation with one whole version, wherever it breaks off.

    changed: gives the generation at an address a new revision, durably.
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
        # Steps under way whose callers have left.
        self._unattended: set[asyncio.Task[Any]] = set()

    def unattended(self, step: asyncio.Task[Any]) -> None:
        """Says that the caller of a step under way has left: it is finished, not begun again.

        The caller may have written anew by then, and been told that it is done; the older
        write must not come after it.
        """
        self._unattended.add(step)
        step.add_done_callback(self._unattended.discard)

    def leave(self) -> None:
        """Has the points swept that a broken step may have left."""
        self._leftovers()

    async def read(self, address: str, document_id: str, deadline: Deadline) -> Record | None:
        """The record or tombstone; None if there is neither."""
        found = await self._points.retrieve(address, [ids.record_id(document_id)], deadline)
        return msgspec.convert(found[0].payload, Record) if found else None

    async def replace(
        self,
        address: str,
        new: NewVersion,
        write: str,
        deadline: Deadline,
        confirm: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[Record, bool]:
        """Writes the version in the live generation: its record, and whether it replaced one.

        confirm: asked once the points are written, last before the record names them; may raise.
        """
        for _ in range(ATTEMPTS):
            current = await self.read(address, new.document_id, deadline)
            self._check_attended()  # this may be what the caller wrote since
            record = new_record(new, current, write)
            await self._write_points(address, new, record, deadline)
            if confirm is not None:
                await confirm()
            if await self._swap(address, record, current, deadline):
                replaced = current is not None and current.live
                if current is not None and replaced:
                    await self._remove(address, current, deadline)
                return record, replaced
            # The record names another version now, and swaps from an older `seq` fail:
            # this version can never become the one.
            await self._remove(address, record, deadline)
            self._check_attended()
        raise contended()

    async def bury(
        self,
        address: str,
        document_id: str,
        write: str,
        deadline: Deadline,
        among: wire.Selection | None = None,
    ) -> tuple[Record | None, int | None]:
        """Deletes the document from the live generation, if its record is `among` those.

        Its tombstone, or an older one, or None for a document that never was, or stays; and
        how many chunks it had, None if there was no document.
        """
        for _ in range(ATTEMPTS):
            current = await self.read(address, document_id, deadline)
            self._check_attended()  # this may be what the caller wrote since
            if current is None or not current.live:
                return current, None
            if among is not None:
                # Asked after the record was read: what has changed since fails the swap.
                itself = wire.Selection(among.must, (ids.record_id(document_id),))
                if not await self._points.count(address, itself, deadline):
                    return None, None
            grave = tombstone(current, write)
            if await self._swap(address, grave, current, deadline):
                await self._remove(address, current, deadline)
                self._leftovers()  # the tombstone itself, in a while
                return grave, current.chunks
            self._check_attended()
        raise contended()

    async def withdraw(self, address: str, record: Record, deadline: Deadline) -> None:
        """Deletes the version of `record`, unless something newer has taken its place."""
        if await self._swap(address, tombstone(record, record.write), record, deadline):
            await self._remove(address, record, deadline)
        self._leftovers()

    async def follow(
        self, address: str, original: Record, new: NewVersion | None, deadline: Deadline
    ) -> bool:
        """Brings the next generation up to what the live one has: a version, or a tombstone.

        Whether it has it now; if not, it has something newer.
        """
        current = await self.read(address, original.document_id, deadline)
        if current is None or current.seq < original.seq:
            if original.live and new is None:
                raise ValueError("a document needs its new version")
            copy = copied_record(original, new)
            if new is not None:
                await self._write_points(address, new, copy, deadline)
            await self._points.advance(address, _point(copy), copy.seq, deadline)
            after = await self.read(address, original.document_id, deadline)
            if after is not None and after.version == copy.version:
                if current is not None and current.live:
                    await self._remove(address, current, deadline)
                return True
            # Somebody else brought the same, or something newer.
            if new is not None:
                await self._remove(address, copy, deadline)
            current = after
        return current is not None and (current.seq, current.write) == (
            original.seq,
            original.write,
        )

    def _check_attended(self) -> None:
        if asyncio.current_task() in self._unattended:
            raise contended()

    async def _write_points(
        self, address: str, new: NewVersion, record: Record, deadline: Deadline
    ) -> None:
        for points in points_of(new, record):
            await self._points.upsert(address, points, deadline)

    async def _swap(
        self, address: str, record: Record, current: Record | None, deadline: Deadline
    ) -> bool:
        """Whether `record` took the place of `current`."""
        seq = None if current is None else current.seq
        await self._points.swap(address, _point(record), seq, deadline)
        after = await self.read(address, record.document_id, deadline)
        if after is None or after.version != record.version:
            # Perhaps it did, and was replaced before it was read: then nobody else knows of
            # the points of `current`.
            self._leftovers()
            return False
        await self._changed(address)
        return True

    async def _remove(self, address: str, record: Record, deadline: Deadline) -> None:
        """Deletes the points of a version that no longer counts; the sweep would, too."""
        points = ids.version_ids(record.document_id, record.version, record.chunks)
        try:
            await self._points.delete(address, wire.Selection(ids=tuple(points)), deadline)
        except ServiceError as error:
            if error.reason is not Reason.COLLECTION_NOT_FOUND:
                log.warning("Points of a replaced version are left to the sweep: %s", error)
            self._leftovers()


def contended() -> ServiceError:
    """The error of a document that changes too often to be read or written."""
    return unavailable("Too many writers change this document at once.")


def _point(record: Record) -> wire.Point:
    return wire.Point(ids.record_id(record.document_id), msgspec.structs.asdict(record))
