"""Collections that are made where there is something already."""

from __future__ import annotations

import copy

from support.gateways import NEW, OLD, Gateway
from support.store import COLLECTION, DIMENSION, soon

from gateway.search import ids
from gateway.search.points import at
from gateway.search.types import Chunking, Stamp

FIRST = at(COLLECTION, 1)


async def make(gateway: Gateway) -> Stamp:
    chunking = Chunking(512, 50)
    return await gateway.search._collections.make(COLLECTION, DIMENSION, chunking, soon())


async def test_a_switch_meanwhile_is_no_reason_to_write_to_a_stamp() -> None:
    gateway = Gateway()
    await gateway.start()
    other = Gateway(gateway)
    await other.copy()
    stored = gateway.points.stored[FIRST]
    before = copy.deepcopy(stored[ids.STAMP_ID].payload)

    async def step(call: str) -> None:
        if call == "swap" and gateway.points.live[COLLECTION] == 1:
            gateway.points.live[COLLECTION] = 2

    gateway.points.step = step
    made = await make(gateway)
    assert (made.generation, made.model) == (2, NEW)
    assert stored[ids.STAMP_ID].payload == before
    assert before["newest"] == 2


async def test_a_stamp_without_a_number_gets_that_of_its_generation() -> None:
    gateway = Gateway()
    await gateway.start()
    points = gateway.points
    points.stored[at(COLLECTION, 4)] = points.stored.pop(FIRST)
    points.live[COLLECTION] = 4
    payload = points.stored[at(COLLECTION, 4)][ids.STAMP_ID].payload
    del payload["generation"], payload["newest"]
    made = await make(gateway)
    assert (made.generation, made.newest, made.model) == (4, 4, OLD)
