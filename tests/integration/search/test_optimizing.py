"""Optimising the embedded store: before it is used, killed in the middle, and out of time."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from support.store import COLLECTION, soon

from gateway.search import embedded, wire
from gateway.search.embedded import EmbeddedPoints
from gateway.search.tuning import Tuning
from runtime.errors import ServiceError

DIMENSION = 64
CHUNKS = 3000
KILLS = 4
CONFIG = wire.Config(DIMENSION, 1.2, 0.75, 48.0, "english", {"kind": "keyword"})
# A graph that takes long to build: there is a middle to be killed in.
SLOW = Tuning(from_vectors=500, quantization="int8", m=32, ef_construct=500)


@asynccontextmanager
async def opened(
    folder: Path, tuning: Tuning = SLOW, timeout_s: float = 0
) -> AsyncIterator[EmbeddedPoints]:
    points = EmbeddedPoints(folder, tuning=tuning, optimize_timeout_s=timeout_s)
    await points.start()
    try:
        yield points
    finally:
        await points.aclose()


def point_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def a_chunk(number: int) -> wire.Point:
    vector = np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)
    vector /= np.linalg.norm(vector)
    return wire.Point(
        point_id(number), {"kind": "chunk", "number": number}, vector.tobytes(), f"word{number}"
    )


async def filled(points: EmbeddedPoints) -> None:
    await points.create(COLLECTION, CONFIG, soon())
    await points.upsert(COLLECTION, [a_chunk(number) for number in range(CHUNKS)], soon())


async def all_there(points: EmbeddedPoints, numbers: range) -> None:
    assert await points.count(COLLECTION, wire.Selection(), soon()) == len(numbers)
    ids = [point_id(number) for number in numbers]
    stored = await points.retrieve(COLLECTION, ids, soon(), vectors=True)
    for point in stored:
        expected = a_chunk(point.payload["number"])
        assert point.id == expected.id
        assert np.allclose(
            np.frombuffer(point.dense or b"", "<f4"),
            np.frombuffer(expected.dense or b"", "<f4"),
            atol=1e-5,
        )
    assert len(stored) == len(numbers)


async def begun(folder: Path) -> None:
    """Waits until the engine builds something."""
    building = folder / "store" / COLLECTION / "1" / "temp_segments"
    async with asyncio.timeout(30):
        while not (building.is_dir() and any(building.iterdir())):
            await asyncio.sleep(0.002)


async def test_killed_in_the_middle_nothing_is_lost(tmp_path: Path) -> None:
    dice = random.Random(3)
    numbers = range(CHUNKS)
    async with opened(tmp_path) as points:
        await filled(points)
    for kill in range(KILLS):
        async with opened(tmp_path) as points:
            # Acknowledged, and only in the log when the process dies.
            late = a_chunk(CHUNKS + kill)
            await points.upsert(COLLECTION, [late], soon())
            numbers = range(CHUNKS + kill + 1)
            process = points.process(COLLECTION)
            assert process is not None
            assert process.pid is not None
            optimizing = asyncio.create_task(points.optimize(COLLECTION, soon()))
            await begun(tmp_path)
            # At a random moment of the building, not to wait for anything.
            await asyncio.sleep(dice.uniform(0, 0.4))
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(ServiceError, match="broke off"):
                await optimizing
        async with opened(tmp_path) as points:
            await all_there(points, numbers)
    async with opened(tmp_path) as points:
        await points.optimize(COLLECTION, soon())
        await all_there(points, numbers)
    leftovers = tmp_path / "store" / COLLECTION / "1" / "temp_segments"
    assert not leftovers.is_dir() or not any(leftovers.iterdir())


async def test_what_is_due_is_done_before_the_store_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "LARGE_BYTES", 1)
    monkeypatch.setattr(embedded, "QUIET_S", 0.0)
    caplog.set_level(logging.INFO)
    async with opened(tmp_path) as points:
        await filled(points)
    before = parts(tmp_path)
    async with opened(tmp_path, timeout_s=60) as points:
        assert before.isdisjoint(parts(tmp_path)), "the part was not written anew"
        await all_there(points, range(CHUNKS))
    assert f"Optimising the collection '{COLLECTION}'" in caplog.text
    assert f"The collection '{COLLECTION}' is ready." in caplog.text


async def test_a_small_store_is_not_looked_at(tmp_path: Path) -> None:
    async with opened(tmp_path) as points:
        await filled(points)
    async with opened(tmp_path, timeout_s=60) as points:
        assert points.process(COLLECTION) is None


# No time at all, and too little to open it; its process must not be lost sight of.
@pytest.mark.parametrize("timeout_s", [1e-9, 0.02])
async def test_out_of_time_the_store_is_used_as_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    timeout_s: float,
) -> None:
    monkeypatch.setattr(embedded, "LARGE_BYTES", 1)
    async with opened(tmp_path) as points:
        await filled(points)
    async with opened(tmp_path, timeout_s=timeout_s) as points:
        assert f"The collection '{COLLECTION}' was not optimised" in caplog.text
        await all_there(points, range(CHUNKS))


def parts(folder: Path) -> set[str]:
    return {part.name for part in (folder / "store" / COLLECTION / "1" / "segments").iterdir()}
