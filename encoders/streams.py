"""The threads that compute: one a stream of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Protocol, TypeVar

from encoders.machine import lower_priority
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
        died: Callable[[BaseException], None],
    ) -> None:
        """Each from now on: takes from the stage, computes, and takes again.

        taken, done: called on the event loop, in the order of what they tell.
        died: called there when a stream ends before the stage was closed.
        """

    async def join(self) -> None:
        """Returns when the last has ended, after the stage was closed."""


class ModelThreads:
    """One thread a stream. The model is loaded in the first, and warmed in each.

    Some runtimes keep kernels, buffers or captured graphs per thread (OpenVINO: the first
    1x16 in a thread took 20 ms, then 4), so the threads that warm are those that serve.
    Each is a pool of its own: a pool of several starts another one whenever none of its
    threads has said yet that it is free. They have a lower priority than the event loop.
    """

    def __init__(self) -> None:
        self._pools = [_thread(0)]

    @property
    def count(self) -> int:
        """How many threads compute."""
        return len(self._pools)

    async def load(self, load: Callable[[], U]) -> U:
        """Runs it in the first thread."""
        return await asyncio.wrap_future(self._pools[0].submit(load))

    async def warm(self, count: int, warm: Callable[[], U]) -> list[U]:
        """Runs it in `count` threads at once, which are those that compute from then on."""
        self._pools += [_thread(number) for number in range(self.count, count)]
        together = Barrier(count)

        def one() -> U:
            together.wait()  # so that each finds the others busy, as it will be
            return warm()

        try:
            runs = [asyncio.wrap_future(pool.submit(one)) for pool in self._pools]
            return list(await asyncio.gather(*runs))
        except BaseException:
            together.abort()  # nobody waits there for one that will not come
            raise

    def start(
        self,
        stage: Stage[T],
        compute: Callable[[T], U],
        taken: Callable[[T], None],
        done: Callable[[U], None],
        died: Callable[[BaseException], None],
    ) -> None:
        """As `Streams.start`. Between two batches a thread does not wait for the event loop."""
        post = asyncio.get_running_loop().call_soon_threadsafe

        def serve() -> None:
            while (thing := stage.take()) is not None:
                post(taken, thing)
                post(done, compute(thing))

        def ended(serving: Future[None]) -> None:
            if not serving.cancelled() and (fault := serving.exception()) is not None:
                with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                    post(died, fault)

        for pool in self._pools:
            pool.submit(serve).add_done_callback(ended)

    async def join(self) -> None:
        """Returns when every thread has ended."""
        for pool in self._pools:
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)

    def abandon(self) -> None:
        """Ends them without waiting, after a load that failed or was broken off."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)


def _thread(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=f"model-{number}", initializer=lower_priority)
