"""The processes of the embedded store: one for each generation in use, a bounded number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.search import wire
from gateway.search.locks import Locked
from gateway.search.points import FolderInUse, unavailable
from gateway.search.process import StoreProcess
from gateway.search.tuning import Tuning
from runtime.deadline import Deadline, expired


@dataclass(slots=True, eq=False)
class _Place:
    """One process, from the moment on in which it is being started.

    leaving: it is to be closed once it is idle.
    """

    opening: asyncio.Task[StoreProcess]
    users: int = 0
    leaving: bool = False

    @property
    def process(self) -> StoreProcess | None:
        """The process; None while it is being started, or if it did not."""
        opened = self.opening.done() and not self.failed
        return self.opening.result() if opened else None

    @property
    def failed(self) -> bool:
        """Whether there will be no process."""
        return self.opening.done() and (
            self.opening.cancelled() or self.opening.exception() is not None
        )


class ProcessPool:
    """Starts a process for a directory at its first call; at most `most` are open.

    One more takes the place of the one that was idle for longest.
    """

    def __init__(self, most: int, tuning: Tuning) -> None:
        self._most = most
        self._tuning = tuning
        # In the order of their last use.
        self._places: dict[Path, _Place] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._places)

    def process(self, directory: Path) -> StoreProcess | None:
        """The process of a directory, if it is open."""
        place = self._places.get(directory)
        return None if place is None else place.process

    @asynccontextmanager
    async def lease(
        self, directory: Path, config: wire.Config, deadline: Deadline, *, create: bool = False
    ) -> AsyncIterator[StoreProcess]:
        """The directory's process, open at least until the end of the block.

        create: makes the generation if it is absent.
        Raises FolderInUse when another gateway has it, and ServiceError VECTOR_DB_UNAVAILABLE
        when its files are missing, its process does not start, or too many are in use.
        """
        place = self._places.pop(directory, None)
        if place is None or place.failed:
            self._make_room()
            # Those that made room, and perhaps the predecessor in this very directory.
            before = frozenset(self._closing)
            opening = self._open(directory, config, before, create=create)
            place = _Place(asyncio.create_task(opening, name="open a generation"))
        self._places[directory] = place
        place.users += 1
        try:
            yield place.process or await self._opened(directory, place, deadline)
        finally:
            place.users -= 1
            if place.leaving and not place.users and self._places.get(directory) is place:
                self._close(directory)

    async def close(self, directory: Path) -> None:
        """Closes the directory's process: the next call opens it anew. One in use closes later,
        once it is idle."""
        place = self._places.get(directory)
        if place is None:
            return
        if place.users:
            place.leaving = True
            return
        await asyncio.wait([self._close(directory)])

    async def discard(self, directory: Path) -> None:
        """Kills the directory's process, whose files are to be removed."""
        place = self._places.pop(directory, None)
        if place is not None:
            await asyncio.wait([place.opening])
            if place.process is not None:
                await place.process.discard()
        if self._closing:
            await asyncio.wait(self._closing)

    async def aclose(self) -> None:
        """Has every process flush and leave."""
        for directory in list(self._places):
            self._close(directory)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _opened(self, directory: Path, place: _Place, deadline: Deadline) -> StoreProcess:
        """The process once it has started; the next one to come starts it if it did not."""
        # Outside: it raises when no time is left, which says nothing of the process.
        share_s = deadline.share_s()
        try:
            async with asyncio.timeout(share_s):
                return await asyncio.shield(place.opening)
        except TimeoutError:
            raise expired() from None
        except Exception:
            if self._places.get(directory) is place:
                del self._places[directory]
            raise

    async def _open(
        self,
        directory: Path,
        config: wire.Config,
        before: frozenset[asyncio.Task[None]],
        *,
        create: bool,
    ) -> StoreProcess:
        if before:
            await asyncio.wait(before)
        if not create and not await asyncio.to_thread(directory.exists):
            raise unavailable(
                f"DATA_DIR: the files of the collection '{directory.parent.name}' are missing "
                f"(generation {directory.name}). Restore them, or delete its folder "
                "to begin afresh."
            )
        process = StoreProcess(directory, config, self._tuning)
        try:
            await process.start(create=create)
        except Locked:
            raise FolderInUse from None
        return process

    def _make_room(self) -> None:
        if len(self._places) < self._most:
            return
        for directory, place in self._places.items():
            if place.users == 0:
                self._close(directory)
                return
        raise unavailable(f"More than {self._most} generations are in use at once.")

    def _close(self, directory: Path) -> asyncio.Task[None]:
        place = self._places.pop(directory)
        closing = asyncio.create_task(_close_when_open(place), name="close a generation")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing


async def _close_when_open(place: _Place) -> None:
    await asyncio.wait([place.opening])
    if place.process is not None:
        await place.process.aclose()
