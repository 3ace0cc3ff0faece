"""Gateways on one store that are stopped, killed or overtaken at any call they make."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from support.points import MemoryPoints
from support.store import COLLECTION, DIMENSION, a_plan, soon, version

from gateway.reindexing import Reindexer, SourceDocument
from gateway.search.points import at
from gateway.search.retirement import Retirement
from gateway.search.search import Search
from gateway.search.sweep import sweep
from gateway.search.types import Chunking, Model, Target
from gateway.search.versions import CHUNK, RECORD, SOURCE, NewVersion
from runtime.deadline import Deadline

OLD, NEW = Model("old", "f-old", DIMENSION), Model("new", "f-new", DIMENSION)


class Killed(BaseException):
    """The gateway's process is gone."""


class Gateway:
    """One process on the store of another, if given."""

    def __init__(self, other: Gateway | None = None) -> None:
        self.points: MemoryPoints = MemoryPoints(None if other is None else other.points)
        self.search = Search(self.points, a_plan())
        self.reindexer = Reindexer(self.search, Copies())

    async def start(self, model: Model = OLD) -> None:
        """Makes the collection, of the old model unless told another."""
        await self.search._prepare(soon())
        await self.search.claim(COLLECTION, model, soon())

    async def put(self, document_id: str, text: str, own: Chunking | None = None) -> str:
        """Writes a document of three chunks; cut by `own`, or as is usual in the generation."""

        async def prepare(target: Target) -> NewVersion:
            target = replace(target, chunking=own or target.chunking)
            return made(document_id, text, target, chunks=3)

        return await self.search.put_document(COLLECTION, document_id, prepare, soon())

    async def settle(self, document_id: str) -> bool:
        """Finds the document as it should be."""
        record = await self.search.record(COLLECTION, document_id, soon())
        assert record is not None
        found = await self.search.get_document(COLLECTION, document_id, soon())
        assert found is not None
        text = found.text.split("\n\n")[0]

        async def prepare(target: Target) -> NewVersion:
            return made(document_id, text, target, chunks=3)

        return await self.search.settle(COLLECTION, record, prepare, soon())

    async def delete(self, document_id: str) -> int | None:
        """Deletes a document."""
        return await self.search.delete_document(COLLECTION, document_id, soon())

    async def rebuild(self, job_id: str = "job") -> None:
        """Rebuilds the collection."""
        await self.reindexer.run(COLLECTION, None, job_id, _ignore)

    async def copy(self, job_id: str = "job") -> None:
        """Rebuilds the collection up to the switch."""
        with patch.object(self.search.builds, "switch", side_effect=Killed):
            with pytest.raises(Killed):
                await self.rebuild(job_id)

    async def switch(self, job_id: str = "job") -> None:
        """Switches to what `copy` has built, and copies nothing more."""
        build = await self.search.builds.claim(COLLECTION, job_id, NEW, None, soon())
        assert build is not None
        await self.search.builds.switch(build, soon())

    async def abandon(self, job_id: str = "job") -> bool:
        """Gives the rebuild up; True: too late."""
        return await self.reindexer.abandon(COLLECTION, job_id)

    async def retire(self) -> None:
        """Drops every generation that is not needed, without waiting."""
        search = self.search
        retirement = Retirement(self.points, search._stamps, search.builds, 0)
        await retirement.look(COLLECTION, soon())
        await retirement.look(COLLECTION, soon())

    async def stand_still(self) -> None:
        """Waits for what was begun."""
        await self.search._records.aclose()


class Copies:
    """What a rebuild copies with: two chunks a document, of the new model."""

    async def prepare(
        self, document: SourceDocument, target: Target, deadline: Deadline
    ) -> NewVersion:
        return made(document.id, document.text.split("\n\n")[0], target, chunks=2)

    async def model(self, deadline: Deadline) -> Model:
        return NEW


def made(document_id: str, text: str, target: Target, *, chunks: int) -> NewVersion:
    """A version whose chunks tell the text, the generation and the model they are made for."""
    whose = f"{target.at} {target.model.name}"
    new = version(document_id, *(f"{text}\n\n{whose} {number}" for number in range(chunks)))
    return replace(new, chunking=target.chunking)


Act = Callable[[], Awaitable[Any]]


async def at_steps(gateway: Gateway, acts: Sequence[tuple[int, Act]], run: Awaitable[Any]) -> bool:
    """Runs, each act being done before the gateway's call of that number; whether all were."""
    waiting = sorted(acts, key=lambda one: one[0])
    seen = 0
    dead = False

    async def step(_: str) -> None:
        nonlocal seen, dead
        if dead:
            raise Killed
        seen += 1
        while waiting and waiting[0][0] < seen:
            _, act = waiting.pop(0)
            try:
                await act()
            except Killed:
                dead = True
                raise

    gateway.points.step = step
    try:
        await run
    except Killed:
        await gateway.stand_still()
    finally:
        gateway.points.step = go_on
    return not waiting


async def kill() -> None:
    """To be done at a step."""
    raise Killed


async def documents(gateway: Gateway) -> dict[str, str]:
    """Document → text in the live generation, each proved to be whole and made for it."""
    fresh = Gateway(gateway)
    stamp = await fresh.search._stamps.fresh(COLLECTION, soon())
    address = at(COLLECTION, stamp.generation)
    assert stamp.model is not None
    points = fresh.points.stored[address].values()
    found = {}
    for record in (one.payload for one in points if one.payload["kind"] == RECORD):
        own = [one.payload for one in points if one.payload.get("version") == record["version"]]
        [source] = [one["text"] for one in own if one["kind"] == SOURCE]
        chunks = sorted((one["ordinal"], one["text"]) for one in own if one["kind"] == CHUNK)
        text = source.split("\n\n")[0]
        assert chunks == [
            (number, f"{text}\n\n{address} {stamp.model.name} {number}")
            for number in range(record["chunks"])
        ]
        assert record["document_id"] not in found
        found[record["document_id"]] = text
    return found


async def only_what_counts(gateway: Gateway) -> None:
    """Proves that nothing stays behind: one generation, and in it points that a record names."""
    fresh = Gateway(gateway)
    await fresh.retire()
    stamp = await fresh.search._stamps.fresh(COLLECTION, soon())
    address = at(COLLECTION, stamp.generation)
    assert list(fresh.points.stored) == [address]
    assert stamp.next is None
    before = await documents(fresh)
    await sweep(fresh.points, address, orphan_age_s=-1)
    assert await documents(fresh) == before


def steps() -> Iterator[int]:
    """0, 1, 2, ...: until the operation under test has no such step; bounded."""
    yield from range(400)
    raise AssertionError("an operation of 400 steps")


def _ignore(done: int, total: int) -> None:
    """Progress."""


async def go_on(_: str) -> None:
    """No step."""
