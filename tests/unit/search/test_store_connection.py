"""The gateway's end of the socket to the store's process."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from gateway.search import process, wire
from gateway.search.process import _Connection, _outlive
from runtime.deadline import Deadline


class Child:
    """What is asked of the child, and a way to answer; both ends of the socket in one."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[wire.Request] = asyncio.Queue()
        self.killed = False
        self.connection = _Connection(cast(Any, self))
        self.connection.connection_made(cast(Any, self))
        self._unframer = wire.Unframer()

    def write(self, data: bytes) -> None:
        for body in self._unframer.feed(data):
            self.asked.put_nowait(msgspec.msgpack.decode(body, type=wire.Request))

    def reply(self, request: wire.Request) -> None:
        body = msgspec.msgpack.encode((request.id, "", None))
        self.connection.data_received(wire.frame(body))

    def kill(self) -> None:
        self.killed = True
        self.connection.connection_lost(None)

    def optimize(self) -> asyncio.Task[bytes | memoryview]:
        return asyncio.create_task(self.connection.call(wire.Optimize(), Deadline.after(3600)))


async def test_it_may_be_silent_until_it_has_optimised_and_no_longer() -> None:
    child = Child()
    first, second = child.optimize(), child.optimize()
    requests = [await child.asked.get(), await child.asked.get()]
    child.reply(requests[0])
    await first
    assert child.connection.optimizing
    child.reply(requests[1])
    await second
    assert not child.connection.optimizing


async def test_it_goes_on_optimising_when_the_caller_has_left() -> None:
    child = Child()
    call = child.optimize()
    request = await child.asked.get()
    call.cancel()
    await asyncio.wait([call])
    assert child.connection.optimizing
    child.reply(request)
    assert not child.connection.optimizing


async def test_one_that_is_silent_after_it_has_optimised_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "HANG_S", 0.1)
    child = Child()
    call = child.optimize()
    child.reply(await child.asked.get())
    await call
    async with asyncio.timeout(30):
        await _outlive(child.connection)
    assert child.killed


async def test_one_that_was_optimising_when_it_was_asked_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "HANG_S", 0.1)
    child = Child()
    call = child.optimize()
    request = await child.asked.get()
    keeping = asyncio.create_task(_outlive(child.connection))
    await child.asked.get()
    child.reply(request)  # and to the ping too late
    await call
    await child.asked.get()  # once more
    assert not child.killed
    async with asyncio.timeout(30):
        await keeping
    assert child.killed
