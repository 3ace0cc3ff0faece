"""The points of the embedded store: calls to the processes that have the generations open."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.search import wire
from gateway.search.generations import PROCESSES, EmbeddedGenerations
from gateway.search.tuning import USUAL, Tuning
from runtime.deadline import Deadline
from runtime.errors import ServiceError

log = logging.getLogger(__name__)

# Points of one write: about 10 ms of the engine, which is what a search may have to wait.
WRITE_POINTS: Final = 64
# Points of one read: at most 80 ms of the engine, with all the metadata that points may have.
READ_POINTS: Final = 64
# Ids of one delete: 5 ms of the engine. The largest document has 65,537.
DELETED_IDS: Final = 1024
# 100,000 chunks take some seconds, with a graph a minute.
OPTIMIZE_TIMEOUT_S: Final = 600.0
# What takes no longer is not worth a word.
QUIET_S: Final = 2.0
# A generation that takes less on disk, about 15,000 chunks, is fast however it lies there.
LARGE_BYTES: Final = 64 * 1024 * 1024


class EmbeddedPoints(EmbeddedGenerations):
    """`Points` in DATA_DIR."""

    exclusive = True

    def __init__(
        self,
        data_dir: Path,
        *,
        processes: int = PROCESSES,
        tuning: Tuning = USUAL,
        optimize_timeout_s: float = OPTIMIZE_TIMEOUT_S,
    ) -> None:
        super().__init__(data_dir, processes=processes, tuning=tuning)
        self._optimize_timeout_s = optimize_timeout_s

    async def start(self) -> None:
        """As said there; and optimises collections for which that is due, before any is used."""
        await super().start()
        if self._optimize_timeout_s:
            for collection, folder in self._folders.items():
                directory = folder.directory(folder.pointer.live)
                if await asyncio.to_thread(_is_large, directory):
                    await self._optimize_before_use(collection, directory)

    async def _optimize_before_use(self, collection: str, directory: Path) -> None:
        """Has a live generation optimised if that is due, and goes without where it fails."""
        started_s = time.monotonic()
        told = asyncio.get_running_loop().call_later(
            QUIET_S,
            log.info,
            "Optimising the collection '%s'; the store is ready after that.",
            collection,
        )
        try:
            await self.optimize(collection, Deadline.after(self._optimize_timeout_s))
        except ServiceError as error:
            # On disk it is as it was, so searches are slower. The process may still be at it.
            log.warning("The collection '%s' was not optimised: %s", collection, error)
            await self._pool.discard(directory)
        finally:
            told.cancel()
        seconds = time.monotonic() - started_s
        if seconds > QUIET_S:
            log.info("The collection '%s' is ready.", collection, extra={"seconds": seconds})

    async def upsert(self, address: str, points: Sequence[wire.Point], deadline: Deadline) -> None:
        """Writes points in small batches; searches get their turn in between."""
        async with self._lease(address, deadline) as process:
            for start in range(0, len(points), WRITE_POINTS):
                call = wire.Upsert(list(points[start : start + WRITE_POINTS]))
                async with process.writing:
                    await process.call(call, type(None), deadline)

    async def swap(
        self, address: str, point: wire.Point, seq: int | None, deadline: Deadline
    ) -> None:
        """Writes `point` if the stored one has this `seq`, or (None) if there is none."""
        await self._write(address, wire.Swap(point, seq), deadline)

    async def advance(self, address: str, point: wire.Point, seq: int, deadline: Deadline) -> None:
        """Writes `point` if there is none, or one with a lower `seq`."""
        await self._write(address, wire.Advance(point, seq), deadline)

    async def set_payload(
        self, address: str, point_id: str, payload: dict[str, Any], deadline: Deadline
    ) -> None:
        """Overwrites some payload fields of one point that exists."""
        await self._write(address, wire.SetPayload(point_id, payload), deadline)

    async def delete(self, address: str, selection: wire.Selection, deadline: Deadline) -> None:
        """Removes the points selected."""
        if selection.ids is None:
            await self._write(address, wire.Delete(selection), deadline)
            return
        for start in range(0, len(selection.ids), DELETED_IDS):
            some = selection.ids[start : start + DELETED_IDS]
            call = wire.Delete(msgspec.structs.replace(selection, ids=some))
            await self._write(address, call, deadline)

    async def optimize(self, address: str, deadline: Deadline) -> None:
        """Merges and indexes the generation's segments; it answers nothing in the meantime."""
        folder, generation = self._find(address)
        await self._write(address, wire.Optimize(), deadline)
        # The process that did it holds half as much again of memory as one that only opens it.
        await self._pool.close(folder.directory(generation))

    async def query(self, address: str, query: wire.Query, deadline: Deadline) -> wire.Found:
        """The nearest chunks: one frame out, one back."""
        async with self._lease(address, deadline) as process:
            return await process.call(query, wire.Found, deadline)

    async def count(self, address: str, selection: wire.Selection, deadline: Deadline) -> int:
        """How many points are selected, exactly."""
        async with self._lease(address, deadline) as process:
            return await process.call(wire.Count(selection), int, deadline)

    async def retrieve(
        self,
        address: str,
        ids: Sequence[str],
        deadline: Deadline,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> list[wire.Point]:
        """The points that exist of those asked for, in any order."""
        names = None if fields is None else list(fields)
        points: list[wire.Point] = []
        async with self._lease(address, deadline) as process:
            for start in range(0, len(ids), READ_POINTS):
                call = wire.Retrieve(list(ids[start : start + READ_POINTS]), names, vectors)
                points += await process.call(call, list[wire.Point], deadline)
        return points

    async def scroll(
        self,
        address: str,
        selection: wire.Selection,
        limit: int,
        deadline: Deadline,
        *,
        start_id: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> wire.Slice:
        """Points in the order of their ids, from `start_id` on, a few at a time."""
        names = None if fields is None else list(fields)
        points: list[wire.Point] = []
        async with self._lease(address, deadline) as process:
            while True:
                most = min(limit - len(points), READ_POINTS)
                call = wire.Scroll(selection, most, start_id, names)
                part = await process.call(call, wire.Slice, deadline)
                points += part.points
                start_id = part.next_id
                if start_id is None or len(points) >= limit:
                    return wire.Slice(points, start_id)

    async def _write(self, address: str, call: wire.Write, deadline: Deadline) -> None:
        async with self._lease(address, deadline) as process, process.writing:
            await process.call(call, type(None), deadline)


def _is_large(directory: Path) -> bool:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*")) >= LARGE_BYTES
