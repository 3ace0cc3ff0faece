"""Calls in flight: their order, their bound, their failure."""

from __future__ import annotations

import asyncio

import pytest

from bench.concurrency import in_flight


async def test_what_is_in_flight_keeps_order_and_its_bound() -> None:
    now = most = 0

    async def send(item: int) -> int:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0)
        now -= 1
        return -item

    assert await in_flight(send, list(range(20)), 4) == [-item for item in range(20)]
    assert most == 4


async def test_what_is_in_flight_ends_when_one_fails() -> None:
    async def send(item: int) -> int:
        raise ConnectionError("gone")

    with pytest.raises(ExceptionGroup):
        await in_flight(send, [1, 2, 3], 2)
