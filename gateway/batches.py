"""Texts of many documents in full calls to the embedder."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.cache.vectors import Embedder
from runtime.deadline import Deadline, expired

# Calls at once for texts of one model: enough that the embedder never waits for us.
EMBED_CALLS: Final = 4

# Little-endian float32, and whether the text was longer than the model reads.
Vector = tuple[bytes, bool]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A text, who waits for its vector, and until when."""

    text: str
    vector: asyncio.Future[Vector]
    deadline: Deadline


class Batches:
    """Vectors of texts, in the bulk lane: a free call takes up to `size` of those that wait."""

    def __init__(self, embedder: Embedder, size: int) -> None:
        self._embedder = embedder
        self._size = size
        # By fingerprint of the model.
        self._waiting: defaultdict[str, deque[_Wanted]] = defaultdict(deque)
        self._calling: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)

    async def embed(
        self, texts: Sequence[str], fingerprint: str, deadline: Deadline
    ) -> list[Vector]:
        """The vectors in the order of the texts. Raises what the embedder raises.

        Raises ServiceError DEADLINE_EXCEEDED when they are not there in time.
        A call that nobody waits for any more is cancelled.
        """
        if not texts:
            return []
        share_s = deadline.share_s()
        loop = asyncio.get_running_loop()
        wanted = [_Wanted(text, loop.create_future(), deadline) for text in texts]
        waiting = self._waiting[fingerprint]
        waiting.extend(wanted)
        calling = self._calling[fingerprint]
        while len(calling) < min(EMBED_CALLS, -(-len(waiting) // self._size)):
            calling.add(asyncio.create_task(self._serve(fingerprint)))
        try:
            async with asyncio.timeout(share_s):
                return list(await asyncio.gather(*(one.vector for one in wanted)))
        except TimeoutError:
            raise expired() from None

    async def aclose(self) -> None:
        """Ends the calls under way."""
        tasks = [task for calling in self._calling.values() for task in calling]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, fingerprint: str) -> None:
        """Makes one call after another until nothing waits."""
        waiting = self._waiting[fingerprint]
        try:
            while waiting:
                # Lets documents that have just become ready add theirs: fuller calls.
                await asyncio.sleep(0)
                taken = [waiting.popleft() for _ in range(min(self._size, len(waiting)))]
                batch = [one for one in taken if not one.vector.done()]
                if batch:
                    await self._call(batch, fingerprint)
        finally:
            # In the same turn as the last look at `waiting`: what comes after it must not take
            # this one for a call that will look again. A callback of the task is a turn late.
            self._calling[fingerprint] -= {asyncio.current_task()}

    async def _call(self, batch: Sequence[_Wanted], fingerprint: str) -> None:
        call = asyncio.ensure_future(self._vectors(batch, fingerprint))
        waiters = len(batch)

        def left(vector: asyncio.Future[Vector]) -> None:
            nonlocal waiters
            waiters -= vector.cancelled()
            if not waiters:
                call.cancel()

        for one in batch:
            one.vector.add_done_callback(left)
        await asyncio.wait([call])
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        for position, one in enumerate(batch):
            if one.vector.done():
                continue
            if error is None:
                one.vector.set_result(call.result()[position])
            elif isinstance(error, Exception):  # those who wait for it must hear of it
                one.vector.set_exception(error)
            else:
                one.vector.cancel()

    async def _vectors(self, batch: Sequence[_Wanted], fingerprint: str) -> list[Vector]:
        made = await self._embedder.embed(
            [one.text for one in batch],
            input_type="passage",
            lane="bulk",
            fingerprint=fingerprint,
            deadline=max((one.deadline for one in batch), key=lambda deadline: deadline.at_s),
        )
        rows = np.ascontiguousarray(made.vectors, "<f4")
        return [(rows[at].tobytes(), at in made.truncated) for at in range(len(batch))]
