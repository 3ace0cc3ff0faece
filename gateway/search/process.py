"""The gateway's side of the store's process: starts it, talks to it, starts it again."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from gateway.search import wire
from gateway.search.locks import Locked
from gateway.search.points import FAILED, unavailable
from gateway.search.tuning import Tuning
from runtime.deadline import Deadline, expired
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)

# What Python runs in the child.
COMMAND: Final = ("-m", "gateway.search.child")
# The predecessor may need its 5 s to leave, and then the log is replayed.
OPEN_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 20.0
FIRST_BACKOFF_S: Final = 0.1
MOST_BACKOFF_S: Final = 5.0
# Starts that failed in a row before the store counts as broken; it is tried on all the same.
BROKEN_AFTER: Final = 5
# How often the child is asked for a sign of life, and how long it may take: far above a
# flush on a slow disk, the longest thing it does.
PING_PAUSE_S: Final = 5.0
HANG_S: Final = 30.0
# Writes under way at once. More would not be faster: they share a sync of the log.
WRITES: Final = 16

T = TypeVar("T")


class StoreProcess:
    """One generation of one collection, served by a child process.

    While the child is away, calls fail at once with VECTOR_DB_UNAVAILABLE.
    writing: a place among the writes under way, to be held while one is called.
    """

    def __init__(self, path: Path, config: wire.Config, tuning: Tuning) -> None:
        self._open = wire.Open(str(path), config, tuning=tuning)
        self._connection: _Connection | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._failures = 0
        self.writing = asyncio.Semaphore(WRITES)

    @property
    def broken(self) -> bool:
        """Whether the last starts all failed."""
        return self._failures >= BROKEN_AFTER

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return None if self._connection is None else self._connection.process.pid

    async def start(self, *, create: bool) -> None:
        """Returns once the child has the generation open; from then on it is kept alive.

        create: makes the generation if it is absent; a child started again never does.
        Raises Locked, or ServiceError VECTOR_DB_UNAVAILABLE.
        """
        self._connection = await _connect(msgspec.structs.replace(self._open, create=create))
        self._keeping = asyncio.create_task(self._keep(), name="store process")

    async def aclose(self) -> None:
        """Lets the child flush and leave; kills it when it does not."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def discard(self) -> None:
        """Kills the child: its files are to be removed."""
        if self._connection is not None:
            self._connection.process.kill()
        await self.aclose()

    async def _keep(self) -> None:
        """Starts the child again whenever it dies; one that hangs is killed."""
        while True:
            if self._connection is not None:
                await _outlive(self._connection)
            try:
                await self._restart()
            except Exception as error:  # a child that refuses, or no more of files or memory
                self._failures += 1
                log.error("The store's process did not start: %s", error or type(error).__name__)
            else:
                log.info("The store's process is back.")

    async def _restart(self) -> None:
        connection = self._connection
        if connection is not None:
            self._failures = self._failures + 1 if connection.age_s() < MOST_BACKOFF_S else 0
            code = await connection.reap()
            self._connection = None  # not before: whoever cancels this has it reaped
            log.error("The store's process ended; starting it again.", extra={"exit": code})
        await asyncio.sleep(min(FIRST_BACKOFF_S * 2**self._failures, MOST_BACKOFF_S))
        self._connection = await _connect(self._open)

    async def call(self, call: wire.Call, result: type[T], deadline: Deadline) -> T:
        """The child's answer.

        Raises ServiceError VECTOR_DB_UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        if self._connection is None:
            raise unavailable()
        raw = await self._connection.call(call, deadline)
        self._failures = 0
        return msgspec.msgpack.decode(raw, type=result)


class _Connection(asyncio.Protocol):
    """One life of the child: requests out, replies in, matched by number."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.ended = asyncio.Event()
        # Calls to optimise that have no reply yet: until when they may take.
        self._optimizing_until_s: dict[int, float] = {}
        self._started_s = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[wire.Reply]] = {}
        self._last_id = 0
        self._unframer = wire.Unframer()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(wire.Reply).decode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream's transport is one; uvloop's does not say so by its bases.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for body in self._unframer.feed(data):
            reply = self._decode(body)
            self._optimizing_until_s.pop(reply.id, None)
            future = self._waiting.pop(reply.id, None)
            # A caller that left took its future out; its answer is dropped.
            if future is not None and not future.done():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(unavailable("The vector store broke off."))
        self.ended.set()

    async def call(self, call: wire.Call, deadline: Deadline) -> bytes | memoryview:
        """The result of one call, still encoded."""
        if self._transport is None or self.ended.is_set():
            raise unavailable()
        share_s = deadline.share_s()
        self._last_id += 1
        request = wire.Request(self._last_id, time.monotonic() + share_s, call)
        if isinstance(call, wire.Optimize):
            self._optimizing_until_s[request.id] = request.expires_at_s
        loop = asyncio.get_running_loop()
        future: asyncio.Future[wire.Reply] = loop.create_future()
        self._waiting[request.id] = future
        self._transport.write(wire.frame(self._encode(request)))
        timer = loop.call_later(share_s, _expire, future)
        try:
            reply = await future
        finally:
            timer.cancel()
            self._waiting.pop(request.id, None)
        match reply.fault:
            case "":
                return bytes(reply.result)
            case "locked":
                raise Locked
            case "expired":
                raise expired()
            case "failed":
                raise unavailable(FAILED)

    @property
    def optimizing(self) -> bool:
        """Whether the child may be busy with a call in which it answers nothing else."""
        now_s = time.monotonic()
        return any(now_s < until_s for until_s in self._optimizing_until_s.values())

    def age_s(self) -> float:
        """Seconds since the child was started."""
        return time.monotonic() - self._started_s

    async def reap(self) -> int:
        """Waits for the child, whose socket has ended; returns its exit code."""
        try:
            return await asyncio.to_thread(self.process.wait, CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait)

    async def aclose(self) -> None:
        """Ends the socket, upon which the child flushes and leaves."""
        if self._transport is not None:
            self._transport.close()
            await self.ended.wait()
        await self.reap()


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(expired())


async def _outlive(connection: _Connection) -> None:
    """Returns when the child is gone; kills one that gives no sign of life."""
    while not connection.ended.is_set():
        # Its sign of life comes after the reply to that, perhaps too late by a moment.
        busy = connection.optimizing
        try:
            await connection.call(wire.Ping(), Deadline.after(HANG_S))
            await asyncio.wait_for(connection.ended.wait(), PING_PAUSE_S)
        except TimeoutError:
            continue
        except ServiceError as error:
            if error.reason is Reason.DEADLINE_EXCEEDED and (busy or connection.optimizing):
                continue
            if error.reason is Reason.DEADLINE_EXCEEDED:
                log.error("The store's process hangs; killing it.")
                connection.process.kill()
            await connection.ended.wait()


async def _connect(request: wire.Open) -> _Connection:
    """Starts a child and has it open the generation. Raises OSError where there is no room."""
    with ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            process = _spawn(theirs)
        undo.callback(process.kill)
        connection = _Connection(process)
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=ours)
        undo.pop_all()
    try:
        await connection.call(request, Deadline.after(OPEN_TIMEOUT_S))
    except BaseException:
        process.kill()
        await connection.aclose()
        raise
    return connection


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """The child: a session of its own, so that Ctrl-C reaches the gateway alone."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, *COMMAND, str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )
