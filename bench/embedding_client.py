"""A client of any embedder, for a process of its own: bulk work, questions, or both at once."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
import uvloop

from bench.embedding import BATCH, IN_FLIGHT, Send, in_bulk
from bench.vectors import Floats

# Between two questions while bulk work runs: a person asks, not a loop.
PAUSE_S: Final = 0.05

Connect = Callable[[], AbstractAsyncContextManager[Send]]


@dataclass(frozen=True, slots=True)
class Order:
    """What to do. Without `seconds`: all texts, then all queries, one after the other.

    seconds: for as long, texts in bulk and queries at the same time, each again from the first.
    """

    texts: Sequence[str] = ()
    queries: Sequence[str] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Completed:
    """vectors: of the texts, if all were embedded once; texts and seconds: of the bulk work.

    latencies_s: of the queries.
    """

    vectors: Floats
    texts: int
    seconds: float
    latencies_s: list[float]


def client(connect: Connect) -> Callable[[Order], Completed]:
    """Made where it runs. connect: a `partial` of `over_grpc` or `over_http`."""
    return lambda order: uvloop.run(carry_out(connect, order))


async def carry_out(connect: Connect, order: Order) -> Completed:
    """Does what is ordered. Raises what the transport raises."""
    async with connect() as send:
        if order.seconds:
            return await _both(send, order)
        latencies_s = []
        vectors, seconds = np.empty((0, 0), np.float32), 0.0
        if order.texts:
            embedded = await in_bulk(send, order.texts)
            vectors, seconds = embedded.vectors, embedded.seconds
        for query in order.queries:
            latencies_s.append(await _ask(send, query))
    return Completed(vectors, len(order.texts), seconds, latencies_s)


async def _both(send: Send, order: Order) -> Completed:
    started_s = time.perf_counter()
    end_s = started_s + order.seconds
    starts = itertools.cycle(range(0, len(order.texts), BATCH))

    async def load() -> int:
        done = 0
        while time.perf_counter() < end_s:
            start = next(starts)
            answer = await send(order.texts[start : start + BATCH], bulk=True)
            done += len(answer.vectors)
        return done

    async def questions() -> list[float]:
        latencies_s = []
        for query in itertools.cycle(order.queries):
            await asyncio.sleep(PAUSE_S)
            if time.perf_counter() >= end_s:
                break
            latencies_s.append(await _ask(send, query))
        return latencies_s

    async with asyncio.TaskGroup() as group:
        asked = group.create_task(questions())
        done = await asyncio.gather(*(load() for _ in range(IN_FLIGHT)))
        seconds = time.perf_counter() - started_s
    return Completed(np.empty((0, 0), np.float32), sum(done), seconds, asked.result())


async def _ask(send: Send, query: str) -> float:
    """Seconds of one query."""
    started_s = time.perf_counter()
    await send([query], bulk=False)
    return time.perf_counter() - started_s
