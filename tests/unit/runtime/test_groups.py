"""Groups of tasks: the first error, as it is, once all have ended."""

from __future__ import annotations

import asyncio

import pytest

from runtime.groups import task_group


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def fail() -> None:
    raise KeyError("first")


async def test_the_first_error_is_raised_once_all_have_ended() -> None:
    ended: list[str] = []
    with pytest.raises(KeyError, match="first"):
        async with task_group() as group:
            group.create_task(forever(ended))
            group.create_task(fail())
    assert ended == ["ended"]


async def test_an_error_of_the_body_is_raised_once_all_have_ended() -> None:
    ended: list[str] = []
    with pytest.raises(KeyError, match="body"):
        async with task_group() as group:
            group.create_task(forever(ended))
            await asyncio.sleep(0)  # it begins
            raise KeyError("body")
    assert ended == ["ended"]


async def test_a_cancellation_stays_one() -> None:
    async def body() -> None:
        async with task_group() as group:
            group.create_task(forever([]))

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
