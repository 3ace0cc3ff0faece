"""The threads that compute: one a stream of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import Protocol, TypeVar

from encoders.stage import Stage

T = TypeVar("T")
U = TypeVar("U")


class Streams(Protocol):
    """Who takes from a stage and computes."""

    @property
    def count(self) -> int:
        """How many compute at once."""

    def start(
        self,
        stage: Stage[T],
        compute: Callable[[T], U],
        taken: Callable[[T], None],
        done: Callable[[U], None],
    ) -> None:
        """Each from now on: takes from the stage, computes, and takes again.

        compute: never raises. taken, done: called on the event loop, in the order of
        what they tell.
        """

    async def join(self) -> None:
        """Returns when the last has ended, after the stage was closed."""


class ModelThreads:
    """One thread a stream. The model is loaded in the first, and warmed in each.

    Some runtimes keep kernels, buffers or captured graphs per thread (OpenVINO: the first
    1x16 in a thread took 20 ms, then 4), so the threads that warm are those that serve.
    """

    def __init__(self) -> None:
        self._count = 1
        # It starts a thread only when none is free, so `_count` of them come to be.
        self._pool = ThreadPoolExecutor(1024, thread_name_prefix="model")

    @property
    def count(self) -> int:
        """How many threads compute."""
        return self._count

    async def load(self, load: Callable[[], U]) -> U:
        """Runs it in the first thread."""
        return await asyncio.wrap_future(self._pool.submit(load))

    async def warm(self, count: int, warm: Callable[[], U]) -> list[U]:
        """Runs it in `count` threads at once, which are those that compute from then on."""
        self._count = count
        together = Barrier(count)

        def one() -> U:
            together.wait()  # so that no thread gets two of them
            return warm()

        runs = [asyncio.wrap_future(self._pool.submit(one)) for _ in range(count)]
        return list(await asyncio.gather(*runs))

    def start(
        self,
        stage: Stage[T],
        compute: Callable[[T], U],
        taken: Callable[[T], None],
        done: Callable[[U], None],
    ) -> None:
        """As `Streams.start`. Between two batches a thread does not wait for the event loop."""
        post = asyncio.get_running_loop().call_soon_threadsafe

        def serve() -> None:
            while (thing := stage.take()) is not None:
                post(taken, thing)
                post(done, compute(thing))

        self._serving: list[Future[None]] = [self._pool.submit(serve) for _ in range(self._count)]

    async def join(self) -> None:
        """Returns when every thread has ended."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    def abandon(self) -> None:
        """Ends them without waiting, after a load that failed or was broken off."""
        self._pool.shutdown(wait=False, cancel_futures=True)
