"""The generator's door."""

from __future__ import annotations

import asyncio
import time

import pytest

from generator_worker.admission import Admission
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError


async def hold(door: Admission, entered: asyncio.Event, leave: asyncio.Event) -> None:
    async with door.place(Deadline.after(10)):
        entered.set()
        await leave.wait()


async def test_places_are_given_in_order_and_never_more_than_there_are() -> None:
    door = Admission(concurrency=2, waiting=10)
    inside = most = 0
    order: list[int] = []

    async def work(number: int) -> None:
        nonlocal inside, most
        async with door.place(Deadline.after(10)):
            order.append(number)
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(work(number))
    assert most == 2
    assert order == sorted(order)


async def test_one_more_than_may_wait_is_refused() -> None:
    door = Admission(concurrency=1, waiting=1)
    entered, leave = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold(door, entered, leave))
        await entered.wait()
        tasks.create_task(hold(door, asyncio.Event(), leave))
        while door.waiting == 0:
            await asyncio.sleep(0)
        with pytest.raises(ServiceError) as caught:
            await hold(door, asyncio.Event(), leave)
        assert caught.value.reason is Reason.QUEUE_FULL
        leave.set()


async def test_who_cannot_be_served_in_time_is_refused_at_once() -> None:
    door = Admission(concurrency=1, waiting=10)
    door._learn(5.0)
    entered, leave = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold(door, entered, leave))
        await entered.wait()
        started_s = time.monotonic()
        with pytest.raises(ServiceError) as caught:
            async with door.place(Deadline.after(2)):
                pass
        assert time.monotonic() - started_s < 1
        assert caught.value.reason is Reason.QUEUE_FULL
        assert caught.value.retry_after_s == pytest.approx(5.0)
        leave.set()


async def test_a_wait_ends_with_the_deadline() -> None:
    door = Admission(concurrency=1, waiting=10)
    entered, leave = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold(door, entered, leave))
        await entered.wait()
        with pytest.raises(ServiceError) as caught:
            async with door.place(Deadline.after(0.05)):
                pass
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        leave.set()
    assert door.waiting == 0


async def test_who_comes_too_late_does_not_enter() -> None:
    with pytest.raises(ServiceError) as caught:
        async with Admission(1, 1).place(Deadline.after(-1)):
            pass
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


async def test_work_that_failed_frees_its_place_and_teaches_nothing() -> None:
    door = Admission(concurrency=1, waiting=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with door.place(Deadline.after(10)):
                raise ZeroDivisionError
    assert door.expected_wait_s() == 0
