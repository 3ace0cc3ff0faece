"""A store in a dictionary, for tests that stop it at every call: `Points` without an engine."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.search import wire
from gateway.search.points import Generations, at, no_collection, split
from runtime.deadline import Deadline

Step = Callable[[str], Awaitable[None]]


class MemoryPoints:
    """One gateway's way to a store that others may use, too.

    step: awaited before every call of this gateway takes effect, with the call's name; may
        raise, and may do anything to the store meanwhile.
    """

    exclusive = False

    broken = False

    def __init__(self, other: MemoryPoints | None = None) -> None:
        self.live: dict[str, int] = {} if other is None else other.live
        self.stored: dict[str, dict[str, wire.Point]] = {} if other is None else other.stored
        self.step: Step = _nothing

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def ping(self, deadline: Deadline) -> None: ...

    async def collections(self, deadline: Deadline) -> list[str]:
        await self.step("collections")
        return sorted(self.live)

    async def generations(self, collection: str, deadline: Deadline) -> Generations:
        await self.step("generations")
        if collection not in self.live:
            raise no_collection(collection)
        live = self.live[collection]
        numbers = {number or 0 for name, number in map(split, self.stored) if name == collection}
        return Generations(live, tuple(sorted(numbers - {live})))

    async def create(self, collection: str, config: wire.Config, deadline: Deadline) -> None:
        await self.step("create")
        if collection not in self.live:
            self.stored[at(collection, 1)] = {}
            self.live[collection] = 1

    async def create_generation(
        self, collection: str, generation: int, config: wire.Config, deadline: Deadline
    ) -> None:
        await self.step("create_generation")
        if self.live.get(collection) == generation:
            raise ValueError("the live one")
        self.stored[at(collection, generation)] = {}

    async def switch(self, collection: str, generation: int, deadline: Deadline) -> None:
        await self.step("switch")
        if at(collection, generation) not in self.stored:
            raise no_collection(at(collection, generation))
        self.live[collection] = generation

    async def drop_generation(self, collection: str, generation: int, deadline: Deadline) -> None:
        await self.step("drop_generation")
        if self.live.get(collection) == generation:
            raise ValueError("the live one")
        self.stored.pop(at(collection, generation), None)

    async def drop(self, collection: str, deadline: Deadline) -> None:
        await self.step("drop")
        if self.live.pop(collection, None) is None:
            raise no_collection(collection)
        for address in [one for one in self.stored if split(one)[0] == collection]:
            del self.stored[address]

    async def optimize(self, address: str, deadline: Deadline) -> None:
        await self.step("optimize")

    async def upsert(self, address: str, points: Sequence[wire.Point], deadline: Deadline) -> None:
        await self.step("upsert")
        there = self._there(address)
        there.update({point.id: copy.deepcopy(point) for point in points})

    async def swap(
        self, address: str, point: wire.Point, seq: int | None, deadline: Deadline
    ) -> None:
        await self.step("swap")
        there = self._there(address)
        stored = there.get(point.id)
        if (None if stored is None else stored.payload["seq"]) == seq:
            there[point.id] = copy.deepcopy(point)

    async def advance(self, address: str, point: wire.Point, seq: int, deadline: Deadline) -> None:
        await self.step("advance")
        assert point.payload["seq"] == seq
        there = self._there(address)
        if point.id not in there or there[point.id].payload["seq"] < seq:
            there[point.id] = copy.deepcopy(point)

    async def set_payload(
        self, address: str, point_id: str, payload: dict[str, Any], deadline: Deadline
    ) -> None:
        await self.step("set_payload")
        there = self._there(address)
        if point_id in there:
            there[point_id].payload.update(payload)

    async def delete(self, address: str, selection: wire.Selection, deadline: Deadline) -> None:
        await self.step("delete")
        there = self._there(address)
        for point_id in [point.id for point in there.values() if _selects(selection, point)]:
            del there[point_id]

    async def query(self, address: str, query: wire.Query, deadline: Deadline) -> wire.Found:
        raise NotImplementedError("questions are not asked here")

    async def count(self, address: str, selection: wire.Selection, deadline: Deadline) -> int:
        await self.step("count")
        return sum(_selects(selection, point) for point in self._there(address).values())

    async def retrieve(
        self,
        address: str,
        ids: Sequence[str],
        deadline: Deadline,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> list[wire.Point]:
        await self.step("retrieve")
        there = self._there(address)
        return [copy.deepcopy(there[point_id]) for point_id in ids if point_id in there]

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
        await self.step("scroll")
        found = sorted(
            (point for point in self._there(address).values() if _selects(selection, point)),
            key=lambda point: point.id,
        )
        rest = [point for point in found if start_id is None or point.id >= start_id]
        following = rest[limit].id if len(rest) > limit else None
        return wire.Slice(copy.deepcopy(rest[:limit]), following)

    def _there(self, address: str) -> dict[str, wire.Point]:
        collection, number = split(address)
        if number is None:
            if collection not in self.live:
                raise no_collection(collection)
            number = self.live[collection]
        if at(collection, number) not in self.stored:
            raise no_collection(address)
        return self.stored[at(collection, number)]


def _selects(selection: wire.Selection, point: wire.Point) -> bool:
    return (
        all(_meets(condition, point.payload) for condition in selection.must)
        and (selection.ids is None or point.id in selection.ids)
        and point.id not in selection.without
    )


def _meets(condition: wire.Condition, payload: dict[str, Any]) -> bool:
    match condition:
        case wire.Match(key, value):
            return bool(payload.get(key) == value)
        case wire.AnyOf(key, values):
            return payload.get(key) in values
    raise NotImplementedError(type(condition).__name__)


async def _nothing(_: str) -> None:
    """No step."""
