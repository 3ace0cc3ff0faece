"""Rebuilds a collection beside the live one, from its kept source texts.

Reads and writes go on meanwhile; writers bring what they write to both (`search.records`).
One comparison of all records copies what differs, and every later one what has come to differ
since. After the first, every document is in both, because a writer who did not know of the
next generation had committed before the copier looked, and the others write there themselves.
So further ones only prove it; under constant writing they may never find nothing, and after
COMPARISONS of them, in which each difference found was made good, the switch comes all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from gateway.chunking import most_chunks
from gateway.search.copying import Build
from gateway.search.search import Search
from gateway.search.types import Chunking, Model, Target
from gateway.search.versions import NewVersion, Record
from gateway.window import WINDOW_CHUNKS, Window
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError
from runtime.groups import task_group

log = logging.getLogger(__name__)

# Documents under way at once: enough that the embedder is never waited for with small ones.
# Of large ones as many as fit WINDOW_CHUNKS: one may have 150 MB of vectors.
DOCUMENTS: Final = 8
# One document: 2,000,000 characters are 65,536 chunks at worst, minutes of a CPU.
DOCUMENT_TIMEOUT_S: Final = 1800.0
# Calls that touch a stamp or make a generation.
STEP_TIMEOUT_S: Final = 60.0
# 200,000 chunks took a minute.
OPTIMIZE_TIMEOUT_S: Final = 3600.0
# Comparisons after the one that copies; see above.
COMPARISONS: Final = 8
# A claim that is not renewed for 60 s may be taken over.
RENEW_EVERY_S: Final = 10.0
# How often a rebuild that optimises says that it goes on.
SIGN_EVERY_S: Final = 10.0

# Documents done so far, and how many there are in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A document as it was given: what a new version of it is made from."""

    id: str
    text: str
    metadata: dict[str, Any]


class Preparer(Protocol):
    """Cuts and embeds, in the bulk lane."""

    async def prepare(
        self, document: SourceDocument, target: Target, deadline: Deadline
    ) -> NewVersion:
        """The document cut by `target.chunking` and embedded by `target.model`.

        Vectors that the live generation of `target.collection` has of the same text by the
        same model are taken from there.
        """
        ...

    async def model(self, deadline: Deadline) -> Model:
        """The model that a rebuild is to use."""
        ...


class Reindexer:
    """Rebuilds of collections, one job each."""

    def __init__(self, search: Search, preparer: Preparer) -> None:
        self._search = search
        self._preparer = preparer

    async def check(self, collection: str, deadline: Deadline) -> None:
        """Raises at once what cannot be.

        ServiceError COLLECTION_NOT_FOUND, REINDEX_RUNNING when another job builds the next
        generation, and what the embedder raises when it is not there.
        """
        await self._search.builds.check(collection, deadline)
        await self._preparer.model(deadline)

    async def run(
        self, collection: str, chunking: Chunking | None, job_id: str, progress: Progress
    ) -> None:
        """Builds the next generation and switches to it; goes on where a run of this job ended.

        progress: called for every document of a comparison, and while it optimises; a sign of
        life where the number is the same.
        Raises ServiceError. One that failed may be run again, or has to be given up by
        `abandon`; cancelled likewise.
        """
        builds = self._search.builds
        step = Deadline.after(STEP_TIMEOUT_S)
        model = await self._preparer.model(step)
        build = await builds.claim(collection, job_id, model, chunking, step)
        if build is None:
            return  # the last run ended between the switch and its report
        rebuild = _Rebuild(self._search, self._preparer, build, chunking, progress)
        async with _renewed(self._search, build):
            await rebuild.copy()
            await rebuild.optimize()
            await rebuild.prove()
        await _to_the_end(builds.switch(build, Deadline.after(STEP_TIMEOUT_S)))
        log.info(
            "Rebuilt a collection.",
            extra={"collection": collection, "generation": build.number, "job": job_id},
        )

    async def abandon(self, collection: str, job_id: str) -> bool:
        """Gives up what the job has built; nothing of it stays. True: too late, it is live."""
        deadline = Deadline.after(STEP_TIMEOUT_S)
        late = not await self._search.builds.abandon(collection, job_id, deadline)
        if late:
            log.info("Too late to give up a rebuild: it is live.", extra={"job": job_id})
        return late


class _Rebuild:
    """One run."""

    def __init__(
        self,
        search: Search,
        preparer: Preparer,
        build: Build,
        asked: Chunking | None,
        progress: Progress,
    ) -> None:
        self._copier = search.copier
        self._preparer = preparer
        self._build = build
        self._asked = asked
        self._progress = progress
        self._total = 0
        self._window = Window(WINDOW_CHUNKS)

    async def copy(self) -> None:
        """Copies every document that differs."""
        self._total = await self._copier.total(self._build, Deadline.after(STEP_TIMEOUT_S))
        self._progress(0, self._total)
        await self._compare(counting=True)

    async def optimize(self) -> None:
        """Has the next generation optimised; for at most OPTIMIZE_TIMEOUT_S that is progress."""
        deadline = Deadline.after(OPTIMIZE_TIMEOUT_S)

        async def say() -> None:
            while deadline.remaining_s() > 0:
                self._progress(self._total, self._total)
                await asyncio.sleep(SIGN_EVERY_S)

        saying = asyncio.create_task(say())
        try:
            await self._copier.optimize(self._build, deadline)
        finally:
            saying.cancel()

    async def prove(self) -> None:
        """Compares until nothing differs."""
        for _ in range(COMPARISONS):
            if await self._compare(counting=False) == 0:
                return

    async def _compare(self, *, counting: bool) -> int:
        """One comparison: how many documents had to be copied."""
        places = asyncio.Semaphore(DOCUMENTS)
        copied = 0
        seen = 0 if counting else self._total

        def done(live: bool) -> None:
            nonlocal seen
            seen += live
            self._progress(min(seen, self._total), self._total)

        async def level(document_id: str) -> None:
            nonlocal copied
            try:
                copied += await self._level(document_id)
                done(live=True)
            finally:
                places.release()

        async with task_group() as group:
            async for one in self._copier.compare(self._build):
                if not one.differs:
                    done(one.live)
                    continue
                await places.acquire()
                group.create_task(level(one.document_id))
        return copied

    async def _level(self, document_id: str) -> bool:
        """Copies one document if it differs; whether it did. Waits for room for its chunks."""
        held = 0

        async def prepare(record: Record, text: str) -> NewVersion:
            nonlocal held
            target = self._target(record)
            size = most_chunks(len(text), target.chunking)
            await self._window.enter(size)
            held += size
            document = SourceDocument(record.document_id, text, record.metadata)
            deadline = Deadline.after(DOCUMENT_TIMEOUT_S)
            return await self._preparer.prepare(document, target, deadline)

        try:
            deadline = Deadline.after(DOCUMENT_TIMEOUT_S)
            return await self._copier.level(self._build, document_id, prepare, deadline)
        finally:
            if held:
                self._window.leave(held)

    def _target(self, record: Record) -> Target:
        """What the next generation's version of a document is made with.

        One that was indexed with a chunking of its own keeps it, unless the rebuild asks for one.
        """
        target, own = self._build.target, Chunking(record.chunk_size, record.overlap)
        if self._asked is None and own != self._build.chunking:
            target = replace(target, chunking=own)
        return target


@asynccontextmanager
async def _renewed(search: Search, build: Build) -> AsyncIterator[None]:
    """Says every RENEW_EVERY_S that the builder lives; ends the body when it lost its claim."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                await search.builds.renew(build, Deadline.after(RENEW_EVERY_S))
            except ServiceError as error:
                if error.reason in (Reason.REINDEX_RUNNING, Reason.COLLECTION_NOT_FOUND):
                    raise
                log.warning("A rebuild could not say that it goes on: %s", error)

    async with task_group() as group:
        renewing = group.create_task(renew())
        yield
        renewing.cancel()


async def _to_the_end(step: Coroutine[Any, Any, None]) -> None:
    """Finishes what has begun, though the caller is cancelled meanwhile."""
    task = asyncio.create_task(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        raise
