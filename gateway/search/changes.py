"""What `records` carries through the generations: a document written, deleted, or left alone."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from gateway.search import wire
from gateway.search.points import at
from gateway.search.types import Stamp, Target
from gateway.search.versions import NewVersion, Prepare, Record
from gateway.search.writing import Writer
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError


class Change(Protocol):
    """A change of one document."""

    async def prepare(self, stamp: Stamp, deadline: Deadline) -> None:
        """Makes what is to be written in the generation of that stamp, once."""
        ...

    async def commit(self, address: str, deadline: Deadline) -> None:
        """Writes it in the live generation."""
        ...

    async def follow(self, address: str, deadline: Deadline) -> bool:
        """Writes it in the next one; False if that has something newer."""
        ...

    async def withdraw(self, address: str, deadline: Deadline) -> None:
        """Takes back what was made for a collection that was deleted and made again.

        The new one may have a generation of the same number, and so have got it.
        """
        ...


# Raises ServiceError COLLECTION_NOT_FOUND unless the stamp's collection is still there.
Confirm = Callable[[str, Stamp, Deadline], Awaitable[None]]


class Put:
    """A document is written."""

    def __init__(self, writer: Writer, collection: str, prepare: Prepare, confirm: Confirm) -> None:
        self._writer = writer
        self._collection = collection
        self._prepare = prepare
        self._confirm = confirm
        self._stamps: dict[str, Stamp] = {}
        self._write = str(uuid.uuid4())
        self._prepared: dict[str, NewVersion] = {}
        self._record: Record | None = None
        self.replaced = False

    async def prepare(self, stamp: Stamp, deadline: Deadline) -> None:
        target = _target(self._collection, stamp)
        if target.at not in self._prepared:
            self._prepared[target.at] = await self._prepare(target)
            self._stamps[target.at] = stamp

    async def commit(self, address: str, deadline: Deadline) -> None:
        first = self._record is None
        confirm = partial(self._confirm, self._collection, self._stamps[address], deadline)
        self._record, replaced = await self._writer.replace(
            address, self._prepared[address], self._write, deadline, confirm
        )
        if first:
            self.replaced = replaced

    async def follow(self, address: str, deadline: Deadline) -> bool:
        if self._record is None:
            raise ValueError("followed before it was committed")
        return await self._writer.follow(address, self._record, self._prepared[address], deadline)

    async def withdraw(self, address: str, deadline: Deadline) -> None:
        if self._record is not None:
            await self._writer.withdraw(address, self._record, deadline)
        self._prepared.clear()
        self._record = None


class Delete:
    """A document is deleted, if its record is `among` those (None: whatever it is)."""

    def __init__(
        self, writer: Writer, document_id: str, among: wire.Selection | None = None
    ) -> None:
        self._writer = writer
        self._document_id = document_id
        self._among = among
        self._write = str(uuid.uuid4())
        self._grave: Record | None = None
        self.chunks: int | None = None

    async def prepare(self, stamp: Stamp, deadline: Deadline) -> None:
        deadline.share_s()

    async def commit(self, address: str, deadline: Deadline) -> None:
        self._grave, chunks = await self._writer.bury(
            address, self._document_id, self._write, deadline, self._among
        )
        if self.chunks is None:
            self.chunks = chunks

    async def follow(self, address: str, deadline: Deadline) -> bool:
        return self._grave is None or await self._writer.follow(
            address, self._grave, None, deadline
        )

    async def withdraw(self, address: str, deadline: Deadline) -> None:
        self._grave = None


class Settle:
    """A document stays as it is."""

    def __init__(self, writer: Writer, collection: str, record: Record, prepare: Prepare) -> None:
        self._writer = writer
        self._collection = collection
        self._record = record
        self._prepare = prepare
        self._prepared: dict[str, NewVersion] = {}

    async def prepare(self, stamp: Stamp, deadline: Deadline) -> None:
        address = at(self._collection, stamp.generation)
        if address in self._prepared:
            return
        current = await self._writer.read(address, self._record.document_id, deadline)
        if current is None or current.seq < self._record.seq:
            self._prepared[address] = await self._prepare(_target(self._collection, stamp))

    async def commit(self, address: str, deadline: Deadline) -> None:
        current = await self._writer.read(address, self._record.document_id, deadline)
        if current is None or (current.seq, current.write) != (
            self._record.seq,
            self._record.write,
        ):
            raise Changed

    async def follow(self, address: str, deadline: Deadline) -> bool:
        new = self._prepared.get(address)
        return await self._writer.follow(address, self._record, new, deadline)

    async def withdraw(self, address: str, deadline: Deadline) -> None:
        self._prepared.clear()


class Changed(Exception):
    """The document is not the one that was to stay."""


def _target(collection: str, stamp: Stamp) -> Target:
    """Raises ServiceError COLLECTION_NOT_FOUND for a collection emptied since it was claimed."""
    if stamp.model is None:
        # The default one is there again at once; whose vectors it is to hold is for the next
        # request to say, once that is compared with the embedder.
        raise ServiceError(
            Reason.COLLECTION_NOT_FOUND,
            f"The collection '{collection}' was deleted while a document was written to it.",
            collection=collection,
        )
    return Target(at(collection, stamp.generation), stamp.model, stamp.chunking)
