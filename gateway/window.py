"""How much of documents is under way at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

# Chunks of documents under way, of all requests together, and as many of the job that runs:
# bounds the memory that vectors take (1.5 KiB each at 384 dimensions, twice) and keeps every call
# to the embedder full.
WINDOW_CHUNKS: Final = 4096


class Window:
    """Lets in so many chunks at once, first come first served; one too large for it alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int) -> None:
        """Returns when there is room."""
        if not self._waiting and self._fits(size):
            self._used += size
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave(size)  # it was let in at the same moment
            raise

    def leave(self, size: int) -> None:
        """Makes room for those who wait."""
        self._used -= size
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            wanted, future = self._waiting.popleft()
            if not future.done():
                self._used += wanted
                future.set_result(None)

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._size
