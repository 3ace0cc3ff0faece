"""The generations of the embedded store: made, switched, removed, and their processes leased.

DATA_DIR/store.lock                          locked by the gateway that has the store
DATA_DIR/store/<collection>/current.json     which generations there are, and which is live
DATA_DIR/store/<collection>/<generation>/    the engine's files
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import msgspec

from gateway.search import wire
from gateway.search.folder import Folder, Pointer
from gateway.search.ids import STAMP_ID
from gateway.search.locks import LOCK_WAIT_S, Locked, hold_within
from gateway.search.points import (
    FIRST_GENERATION,
    FolderInUse,
    Generations,
    at,
    no_collection,
    split,
)
from gateway.search.pool import ProcessPool
from gateway.search.process import OPEN_TIMEOUT_S, StoreProcess
from gateway.search.settings import COLLECTION_PATTERN
from gateway.search.tuning import USUAL, Tuning
from runtime.deadline import Deadline, expired
from runtime.errors import Reason, ServiceError
from runtime.supervision import ResourceTaken

# Generations open at once, a process of about 60 MB each: the 32 collections that there may be
# unless MAX_COLLECTIONS says otherwise, one being built, and some that were just replaced.
PROCESSES: Final = 40


class EmbeddedGenerations:
    """What `Points` says of generations, in DATA_DIR."""

    def __init__(
        self, data_dir: Path, *, processes: int = PROCESSES, tuning: Tuning = USUAL
    ) -> None:
        self._root = data_dir / "store"
        self._lock: int | None = None
        # Collections that have a live generation.
        self._folders: dict[str, Folder] = {}
        self._pool = ProcessPool(processes, tuning)
        # One change of the generations at a time; each goes on without its caller.
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()

    @property
    def broken(self) -> bool:
        """Whether the process of a live generation cannot be brought back."""
        return any(process.broken for process in self._live())

    async def start(self) -> None:
        """Makes the folder, and clears up after a crash.

        Raises ResourceTaken when nothing can be written there, FolderInUse when another
        gateway has it, and ServiceError VECTOR_DB_UNAVAILABLE for a pointer that is damaged.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self._root):
                pass
            await asyncio.to_thread(self._load)
        except Locked:
            raise FolderInUse from None
        except OSError as error:
            raise ResourceTaken(
                f"DATA_DIR: the data folder cannot be written ({error.strerror}); "
                "set another folder, or make this one writable."
            ) from error

    def _load(self) -> None:
        if self._lock is not None:
            return  # started already
        lock = hold_within(self._root, LOCK_WAIT_S)
        try:
            for path in sorted(self._root.iterdir()):
                folder = Folder(path)
                # Others are copies that an operator made.
                named = path.is_dir() and re.fullmatch(COLLECTION_PATTERN, path.name)
                if named and folder.load():
                    self._folders[path.name] = folder
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    async def aclose(self) -> None:
        """Finishes changes under way, has every process flush and leave, frees the folder."""
        if self._changes:
            await asyncio.wait(self._changes)
        await self._pool.aclose()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    async def ping(self, deadline: Deadline) -> None:
        """Returns when the process of every live generation in use answers."""
        for process in self._live():
            await process.call(wire.Ping(), type(None), deadline)

    async def collections(self, deadline: Deadline) -> list[str]:
        """The collections, sorted."""
        return sorted(self._folders)

    async def generations(self, collection: str, deadline: Deadline) -> Generations:
        """The generations that are there."""
        pointer = self._folder(collection).pointer
        return Generations(pointer.live, tuple(sorted(pointer.others)))

    async def create(self, collection: str, config: wire.Config, deadline: Deadline) -> None:
        """Makes the first generation; in a collection that exists, every one gets these indexes.

        One in which nothing was ever written is made anew where `config` is another: a first
        start with a wrong setting must not decide for good.
        """
        await self._change(self._create(collection, config, deadline), deadline)

    async def _create(self, collection: str, config: wire.Config, deadline: Deadline) -> None:
        folder = self._folders.get(collection) or Folder(self._root / collection)
        if collection not in self._folders and not await asyncio.to_thread(folder.load):
            await asyncio.to_thread(folder.begin, config)
            await self._make(folder, FIRST_GENERATION, config)
            await asyncio.to_thread(folder.commit, Pointer(FIRST_GENERATION, config))
        self._folders[collection] = folder
        pointer = folder.pointer.indexed(config.indexes)
        if pointer != folder.pointer:
            await asyncio.to_thread(folder.commit, pointer)
            for generation in pointer.generations:
                await self._pool.close(folder.directory(generation))  # opens with them
        indexes = pointer.config.indexes
        if pointer.config != msgspec.structs.replace(config, indexes=indexes) and (
            await self._unused(collection, deadline)
        ):
            unused, fresh = pointer.live, max(pointer.generations) + 1
            await self._make(folder, fresh, msgspec.structs.replace(config, indexes=indexes))
            pointer = pointer.adding(fresh, config).switched(fresh)
            await asyncio.to_thread(folder.commit, pointer)
            await self._remove(folder, unused)
        async with self._lease(collection, deadline):
            pass  # what keeps it from opening is told now

    async def _unused(self, collection: str, deadline: Deadline) -> bool:
        """Whether there is nothing but a stamp without a model."""
        call = wire.Scroll(wire.Selection(), 2, fields=["model"])
        async with self._lease(collection, deadline) as process:
            found = await process.call(call, wire.Slice, deadline)
        return all(
            point.id == STAMP_ID and point.payload.get("model") is None for point in found.points
        )

    async def create_generation(
        self, collection: str, generation: int, config: wire.Config, deadline: Deadline
    ) -> None:
        """Makes an empty generation that is not live; one of that number is removed first."""
        await self._change(self._create_generation(collection, generation, config), deadline)

    async def _create_generation(
        self, collection: str, generation: int, config: wire.Config
    ) -> None:
        folder = self._folder(collection)
        await self._remove(folder, generation)
        await self._make(folder, generation, config)
        await asyncio.to_thread(folder.commit, folder.pointer.adding(generation, config))

    async def switch(self, collection: str, generation: int, deadline: Deadline) -> None:
        """Makes this generation the live one: the pointer is replaced, nothing else."""
        await self._change(self._switch(collection, generation), deadline)

    async def _switch(self, collection: str, generation: int) -> None:
        folder = self._folder(collection)
        if generation not in folder.pointer.generations:
            raise no_collection(at(collection, generation))
        if generation != folder.pointer.live:
            await asyncio.to_thread(folder.commit, folder.pointer.switched(generation))

    async def drop_generation(self, collection: str, generation: int, deadline: Deadline) -> None:
        """Removes a generation that is not live, if it is there."""
        await self._change(self._drop_generation(collection, generation), deadline)

    async def _drop_generation(self, collection: str, generation: int) -> None:
        if collection in self._folders:
            await self._remove(self._folders[collection], generation)

    async def drop(self, collection: str, deadline: Deadline) -> None:
        """Removes the collection: first from sight, then from the disk."""
        await self._change(self._drop(collection), deadline)

    async def _drop(self, collection: str) -> None:
        folder = self._folder(collection)
        generations = list(folder.pointer.generations)
        await asyncio.to_thread(folder.commit, Pointer(0, folder.pointer.config))
        del self._folders[collection]
        for generation in generations:
            await self._pool.discard(folder.directory(generation))
        await asyncio.to_thread(folder.remove)

    async def _make(self, folder: Folder, generation: int, config: wire.Config) -> None:
        """The files of an empty generation, which the pointer does not name yet."""
        directory, deadline = folder.directory(generation), Deadline.after(OPEN_TIMEOUT_S)
        await asyncio.to_thread(folder.remove_generation, generation)
        async with self._pool.lease(directory, config, deadline, create=True):
            pass

    async def _remove(self, folder: Folder, generation: int) -> None:
        """Removes a generation from the pointer, then its process, then its files."""
        if generation == folder.pointer.live:
            raise ValueError(f"generation {generation} is the live one")
        if generation in folder.pointer.others:
            await asyncio.to_thread(folder.commit, folder.pointer.without(generation))
        await self._pool.discard(folder.directory(generation))
        await asyncio.to_thread(folder.remove_generation, generation)

    async def _change(self, change: Coroutine[Any, Any, None], deadline: Deadline) -> None:
        """Runs a change after those before it, and to its end, whatever becomes of the caller."""
        try:
            share_s = deadline.share_s()
        except ServiceError:
            change.close()  # has not begun
            raise
        task = asyncio.create_task(self._in_turn(change), name="change of generations")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            async with asyncio.timeout(share_s):
                await asyncio.shield(task)
        except TimeoutError:
            raise expired() from None

    async def _in_turn(self, change: Coroutine[Any, Any, None]) -> None:
        async with self._changing:
            try:
                await change
            except Locked:
                raise FolderInUse from None

    @asynccontextmanager
    async def _lease(self, address: str, deadline: Deadline) -> AsyncIterator[StoreProcess]:
        """The process of the generation that the address means at this moment."""
        folder, generation = self._find(address)
        directory, config = folder.directory(generation), folder.pointer.generations[generation]
        try:
            async with self._pool.lease(directory, config, deadline) as process:
                yield process
        except ServiceError as error:
            gone = generation not in folder.pointer.generations
            if gone and error.reason is Reason.VECTOR_DB_UNAVAILABLE:
                raise no_collection(address) from error  # removed under the call
            raise

    def process(self, address: str) -> StoreProcess | None:
        """The process of a generation, if it is open. Raises ServiceError COLLECTION_NOT_FOUND."""
        folder, generation = self._find(address)
        return self._pool.process(folder.directory(generation))

    def _find(self, address: str) -> tuple[Folder, int]:
        collection, generation = split(address)
        folder = self._folders.get(collection)
        if folder is None:
            raise no_collection(address)
        generation = folder.pointer.live if generation is None else generation
        if generation not in folder.pointer.generations:
            raise no_collection(address)
        return folder, generation

    def _folder(self, collection: str) -> Folder:
        folder = self._folders.get(collection)
        if folder is None:
            raise no_collection(collection)
        return folder

    def _live(self) -> Iterator[StoreProcess]:
        """The processes of live generations that are open."""
        for folder in list(self._folders.values()):
            process = self._pool.process(folder.directory(folder.pointer.live))
            if process is not None:
                yield process
