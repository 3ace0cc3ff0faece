"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.problems import encode

# Proxies and browsers give up on a silent stream after 30 to 60 s.
PING_S: Final = 15.0
_PING: Final = b": ping\n\n"
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would otherwise hold the tokens back until its buffer is full.
    (b"x-accel-buffering", b"no"),
]


def event(name: str, value: Any) -> bytes:
    """One event; JSON has no raw newline, so its data is one line."""
    return b"event: %s\ndata: %s\n\n" % (name.encode("ascii"), encode(value))


class EventStream(Response):
    """Sends events as they are made.

    Every failure is raised: before the first event it gets its own status, later the exchange's
    last words. The caller's departure cancels the task this runs in, which closes `events`.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], ping_s: float = PING_S) -> None:
        super().__init__()
        self._events = events
        self._ping_s = ping_s
        self._started = False
        self._lock = asyncio.Lock()
        self._wrote_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the whole stream."""
        self._wrote_s = asyncio.get_running_loop().time()
        pings = asyncio.create_task(self._ping(send))
        try:
            async with aclosing(self._events) as events:
                async for one in events:
                    await self._write(send, one)
        finally:
            pings.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _write(self, send: Send, chunk: bytes) -> None:
        async with self._lock:
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            self._wrote_s = asyncio.get_running_loop().time()

    async def _ping(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = self._wrote_s + self._ping_s
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            else:
                await self._write(send, _PING)
