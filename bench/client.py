"""A gRPC client in a process of its own, which sends prepared calls by a schedule.

Requests are bytes that were serialised before, and answers stay bytes: no work is done per call
but gRPC's own (0.15 ms of CPU).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
import uvloop

from bench.apart import Apart, apart
from bench.calls import OK, Call, Load, Outcome
from bench.schedule import Closed, arrivals_s
from encoders.requests import MODEL_MS, QUEUE_MS
from runtime.channel import channel_options
from runtime.errors import decode

# A user's machine is never busy with our models. Where the system lets it, a client that asks
# goes before everything else, so that its own waits for a processor are not measured.
PRIORITY: Final = -10
READY_TIMEOUT_S: Final = 30.0
# A closed loop waits so long after an error, as the least retry-after says: it would spin.
PAUSE_S: Final = 0.05

Client = Apart[Load, Outcome]


@dataclass(slots=True)
class Sent:
    """One call as it was seen, not yet read: reading waits until the load is over."""

    due_s: float
    late_s: float
    took_s: float
    trailing: Any
    error: grpc.aio.AioRpcError | None


def running(target: str, service: str, priority: int = PRIORITY) -> AbstractContextManager[Client]:
    """A client of `service` at `target`: called with a load, it gives the outcome.

    priority: nice value, where the system allows it.
    """
    return apart(partial(_open, target, service, priority))


def _open(target: str, service: str, priority: int) -> Callable[[Load], Outcome]:
    """In the client's process: one event loop and one channel for all loads."""
    nice = _prioritised(priority)
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    async def connect() -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(target, options=channel_options(service))
        async with asyncio.timeout(READY_TIMEOUT_S):
            await channel.channel_ready()
        return channel

    channel = runner.run(connect())

    def run(load: Load) -> Outcome:
        gc.collect()
        gc.disable()  # its pauses would be the worker's latency
        started_s, cpu_s = time.perf_counter(), time.process_time()
        sent = runner.run(drive(channel, load))
        duration_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        gc.enable()
        return Outcome(tuple(call_of(one) for one in sent), duration_s, cpu_s, nice)

    return run


def _prioritised(priority: int) -> int:
    """The priority the process has got: lower goes first."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, priority)
    return os.getpriority(os.PRIO_PROCESS, 0)


async def drive(channel: grpc.aio.Channel, load: Load) -> list[Sent]:
    """Sends the load; returns when its time is over and the last call has been answered."""
    call = channel.unary_unary(load.method, request_serializer=bytes, response_deserializer=bytes)
    sent: list[Sent] = []
    origin_s = time.perf_counter()

    async def send(request: bytes, due_s: float) -> bool:
        began_s = time.perf_counter()
        late_s = began_s - origin_s - due_s
        error, trailing = None, None
        try:
            answer = call(request, timeout=max(0.0, load.timeout_s - late_s))
            await answer
            ended_s = time.perf_counter()
            trailing = await answer.trailing_metadata()
        except grpc.aio.AioRpcError as failed:
            ended_s = time.perf_counter()
            error = failed
        sent.append(Sent(due_s, late_s, ended_s - began_s, trailing, error))
        return error is None

    requests = itertools.cycle(load.requests)
    if isinstance(load.schedule, Closed):
        await _closed(send, requests, load.schedule.in_flight, origin_s, load.duration_s)
    else:
        async with asyncio.TaskGroup() as calls:
            for due_s in arrivals_s(load.schedule, load.duration_s):
                await asyncio.sleep(max(0.0, origin_s + due_s - time.perf_counter()))
                calls.create_task(send(next(requests), due_s))
            # A pause at the end belongs to the load as much as one between two calls.
            await asyncio.sleep(max(0.0, origin_s + load.duration_s - time.perf_counter()))
    return sent


async def _closed(
    send: Callable[[bytes, float], Awaitable[bool]],
    requests: Iterator[bytes],
    in_flight: int,
    origin_s: float,
    duration_s: float,
) -> None:
    async def repeat() -> None:
        while (due_s := time.perf_counter() - origin_s) < duration_s:
            if not await send(next(requests), due_s):
                await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(repeat() for _ in range(in_flight)))


def call_of(sent: Sent) -> Call:
    """What became of it, read from trailing metadata or the error."""
    if sent.error is None:
        said = dict(sent.trailing or ())
        return Call(
            sent.due_s,
            sent.late_s,
            sent.took_s,
            OK,
            model_ms=_number(said.get(MODEL_MS)),
            queue_ms=_number(said.get(QUEUE_MS)),
        )
    failed = decode(sent.error)
    return Call(
        sent.due_s,
        sent.late_s,
        sent.took_s,
        sent.error.code().name,
        failed.reason.value,
        retry_after_s=failed.retry_after_s,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
