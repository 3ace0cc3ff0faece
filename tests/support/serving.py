"""Runs a worker's server inside a test, over a real socket, stopped as the launcher stops it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Running:
    """A worker that listens."""

    target: str
    metrics_port: int
    launcher: asyncio.StreamReader
    stop: Callable[[], None]
    task: asyncio.Task[None]

    async def ready(self) -> str:
        """Waits until the worker reports ready; returns its detail line."""
        event = await _event(self.launcher, self.task)
        assert event["event"] == "ready"
        return str(event["detail"])


@asynccontextmanager
async def listening(
    serve: Callable[[int], Coroutine[Any, Any, None]],
) -> AsyncIterator[Running]:
    """Runs `serve(control_fd)` until the block ends; yields once it listens."""
    ours, theirs = socket.socketpair()
    task = asyncio.create_task(serve(theirs.detach()))
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        event = await _event(reader, task)
        assert event["event"] == "listening"
        yield Running(
            f"127.0.0.1:{event['grpc_port']}", event["metrics_port"], reader, writer.close, task
        )
    finally:
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(task, 30)


async def _event(reader: asyncio.StreamReader, task: asyncio.Task[None]) -> dict[str, Any]:
    """The next line of the worker, or the error that it died of."""
    line = asyncio.ensure_future(reader.readline())
    await asyncio.wait((line, task), timeout=60, return_when=asyncio.FIRST_COMPLETED)
    if not line.done():
        line.cancel()
        if task.done():
            task.result()
        raise AssertionError("the worker said nothing for 60 s, or ended")
    event: dict[str, Any] = json.loads(line.result() or b"{}")
    return event
