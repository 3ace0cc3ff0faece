"""The points of the embedded store: calls to the processes that have the generations open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.search import wire
from gateway.search.generations import EmbeddedGenerations
from runtime.deadline import Deadline

# Points of one write: about 10 ms of the engine, which is what a search may have to wait.
WRITE_POINTS: Final = 64
# Points of one read: at most 80 ms of the engine, with all the metadata that points may have.
READ_POINTS: Final = 64


class EmbeddedPoints(EmbeddedGenerations):
    """`Points` in DATA_DIR."""

    exclusive = True

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
        await self._write(address, wire.Delete(selection), deadline)

    async def optimize(self, address: str, deadline: Deadline) -> None:
        """Merges and indexes the generation's segments; it answers nothing in the meantime."""
        await self._write(address, wire.Optimize(), deadline)

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
