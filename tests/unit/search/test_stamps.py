"""What is remembered of stamps, and for how long."""

from __future__ import annotations

import asyncio

import pytest
from support.gateways import Gateway
from support.store import COLLECTION, soon

from gateway.search.points import at
from runtime.errors import ServiceError


async def test_a_revision_that_is_written_leaves_nothing_behind() -> None:
    gateway = Gateway()
    await gateway.start()
    stamps = gateway.search._stamps
    before = await stamps.fresh(COLLECTION, soon())
    await asyncio.gather(*(stamps.bump(at(COLLECTION, 1)) for _ in range(5)))
    with pytest.raises(ServiceError):
        await stamps.bump(at(COLLECTION, 7))
    assert stamps._bumps == {}
    assert (await stamps.fresh(COLLECTION, soon())).revision > before.revision


async def test_of_a_collection_or_generation_that_is_gone_nothing_is_remembered() -> None:
    gateway = Gateway()
    await gateway.start()
    await gateway.copy()
    await gateway.put("a", "one")
    stamps = gateway.search._stamps
    assert COLLECTION in stamps._following
    await gateway.abandon()
    await gateway.put("a", "two")
    assert stamps._following == {}
    # Another gateway drops it.
    await Gateway(gateway).points.drop(COLLECTION, soon())
    with pytest.raises(ServiceError):
        await stamps.fresh(COLLECTION, soon())
    assert stamps._known == {}
