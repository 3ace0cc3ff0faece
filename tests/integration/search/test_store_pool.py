"""The processes of the embedded store: how many there are, and who waits for whom."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.store import COLLECTION, CONFIG, a_stamp, soon

from gateway.search import ids
from gateway.search.embedded import EmbeddedPoints
from runtime.errors import Reason, ServiceError


async def stamped(points: EmbeddedPoints, address: str) -> bool:
    return bool(await points.retrieve(address, [ids.STAMP_ID], soon()))


async def test_the_number_of_processes_is_bounded_and_the_idle_ones_make_room(
    tmp_path: Path,
) -> None:
    points = EmbeddedPoints(tmp_path, processes=2)
    await points.start()
    try:
        for name in ("a", "b", "c"):
            await points.create(name, CONFIG, soon())
            await points.swap(name, a_stamp(), None, soon())
        assert [points.process(name) is None for name in ("a", "b", "c")] == [True, False, False]
        assert await stamped(points, "a")
        assert [points.process(name) is None for name in ("a", "b", "c")] == [False, True, False]
        async with points._lease("a", soon()), points._lease("b", soon()):
            with pytest.raises(ServiceError, match="More than 2 generations are in use") as caught:
                await stamped(points, "c")
            assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
            assert caught.value.retry_after_s is not None
            assert await stamped(points, "a")
        assert await stamped(points, "c")
    finally:
        await points.aclose()


async def test_a_process_is_closed_while_it_is_being_opened(tmp_path: Path) -> None:
    points = EmbeddedPoints(tmp_path)
    await points.start()
    await points.create(COLLECTION, CONFIG, soon())
    await points.swap(COLLECTION, a_stamp(), None, soon())
    directory = points._folders[COLLECTION].directory(1)
    await points._pool.close(directory)
    asking = asyncio.create_task(stamped(points, COLLECTION))
    await asyncio.sleep(0)  # the process is about to be started
    assert len(points._pool) == 1
    async with asyncio.timeout(30):
        await points.aclose()
    await asyncio.wait([asking])


async def test_a_process_in_use_is_closed_once_it_is_idle(tmp_path: Path) -> None:
    points = EmbeddedPoints(tmp_path)
    await points.start()
    try:
        await points.create(COLLECTION, CONFIG, soon())
        await points.swap(COLLECTION, a_stamp(), None, soon())
        async with points._lease(COLLECTION, soon()) as before:
            async with points._lease(COLLECTION, soon()):
                await points.optimize(COLLECTION, soon())
            assert points.process(COLLECTION) is before
            assert before.pid is not None
        assert points.process(COLLECTION) is None
        assert await stamped(points, COLLECTION)
        after = points.process(COLLECTION)
        assert after is not None
        assert after is not before
        # The other one has been left alone since.
        async with points._lease(COLLECTION, soon()):
            pass
        assert points.process(COLLECTION) is after
    finally:
        await points.aclose()
