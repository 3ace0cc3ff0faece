"""The embedded store: a directory per generation, each served by a process of its own.

DATA_DIR/store/<collection>/current.json     which generation is live, and which is next
DATA_DIR/store/<collection>/<generation>/    the engine's files
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryFile
from typing import Any, Final, TypeVar

import msgspec

from gateway.search import wire
from gateway.search.ids import STAMP_ID
from gateway.search.points import FolderInUse, no_collection, unavailable
from gateway.search.process import Locked, StoreProcess
from runtime.deadline import Deadline
from runtime.supervision import ResourceTaken

POINTER_NAME: Final = "current.json"
# Points of one write: about 10 ms of the engine, which is what a search may have to wait.
WRITE_POINTS: Final = 64
# Points of one read: at most 80 ms of the engine, with all the metadata that points may have.
READ_POINTS: Final = 64
# Writes under way at once. More would not be faster: they share a sync of the log.
WRITES: Final = 16

T = TypeVar("T")


class Pointer(msgspec.Struct, frozen=True):
    """Which generation answers, and which is being built beside it."""

    live: int
    next: int | None
    config: wire.Config


class EmbeddedPoints:
    """`Points` in DATA_DIR."""

    exclusive = True

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "store"
        self._processes: dict[str, StoreProcess] = {}
        self._opening = asyncio.Lock()
        self._writing = asyncio.Semaphore(WRITES)

    @property
    def broken(self) -> bool:
        """Whether a process of the store cannot be brought back."""
        return any(process.broken for process in self._processes.values())

    async def start(self) -> None:
        """Makes the folder. Raises ResourceTaken when nothing can be written there."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self._root):
                pass
        except OSError as error:
            raise ResourceTaken(
                f"DATA_DIR: the data folder cannot be written ({error.strerror}); "
                "set another folder, or make this one writable."
            ) from error

    async def aclose(self) -> None:
        """Has every process flush and leave."""
        processes, self._processes = self._processes, {}
        await asyncio.gather(*(process.aclose() for process in processes.values()))

    async def ping(self, deadline: Deadline) -> None:
        """Returns when every process answers."""
        for process in self._processes.values():
            await process.call(wire.Ping(), type(None), deadline)

    async def create(self, collection: str, config: wire.Config, deadline: Deadline) -> None:
        """Makes the first generation; one that exists gets missing indexes.

        One in which nothing was ever written is made anew where `config` is another: a first
        start with a wrong setting must not decide for good.
        """
        pointer_path = self._pointer_path(collection)
        if not pointer_path.exists():
            await self._begin(collection, Pointer(1, None, config))
            return
        known = _read_pointer(pointer_path)
        kept = msgspec.structs.replace(known.config, indexes=known.config.indexes | config.indexes)
        await self._open(collection, msgspec.structs.replace(known, config=kept), create=False)
        if kept != msgspec.structs.replace(config, indexes=kept.indexes) and await self._unused(
            collection, deadline
        ):
            await self._processes.pop(collection).aclose()
            # A crash may have left one that no pointer names.
            rmtree(self._directory(collection, known.live + 1), ignore_errors=True)
            await self._begin(collection, Pointer(known.live + 1, None, config))
            rmtree(self._directory(collection, known.live))
            return
        _write_pointer(pointer_path, msgspec.structs.replace(known, config=kept))

    async def _begin(self, collection: str, pointer: Pointer) -> None:
        """An empty generation. It comes first: a pointer never names what is not there."""
        await self._open(collection, pointer, create=True)
        _write_pointer(self._pointer_path(collection), pointer)

    async def _unused(self, collection: str, deadline: Deadline) -> bool:
        """Whether there is nothing but a stamp without a model."""
        found = await self.scroll(collection, wire.Selection(), 2, deadline, fields=["model"])
        return all(
            point.id == STAMP_ID and point.payload.get("model") is None for point in found.points
        )

    async def upsert(
        self, collection: str, points: Sequence[wire.Point], deadline: Deadline
    ) -> None:
        """Writes points in small batches; searches get their turn in between."""
        process = await self._process(collection)
        for start in range(0, len(points), WRITE_POINTS):
            batch = list(points[start : start + WRITE_POINTS])
            await self._write(process, wire.Upsert(batch), deadline)

    async def swap(
        self, collection: str, point: wire.Point, seq: int | None, deadline: Deadline
    ) -> None:
        """Writes `point` if the stored one has this `seq`, or (None) if there is none."""
        await self._write(await self._process(collection), wire.Swap(point, seq), deadline)

    async def set_payload(
        self, collection: str, point_id: str, payload: dict[str, Any], deadline: Deadline
    ) -> None:
        """Overwrites some payload fields of one point that exists."""
        call = wire.SetPayload(point_id, payload)
        await self._write(await self._process(collection), call, deadline)

    async def delete(self, collection: str, selection: wire.Selection, deadline: Deadline) -> None:
        """Removes the points selected."""
        await self._write(await self._process(collection), wire.Delete(selection), deadline)

    async def query(self, collection: str, query: wire.Query, deadline: Deadline) -> wire.Found:
        """The nearest chunks: one frame out, one back."""
        process = await self._process(collection)
        return await process.call(query, wire.Found, deadline)

    async def retrieve(
        self,
        collection: str,
        ids: Sequence[str],
        deadline: Deadline,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> list[wire.Point]:
        """The points that exist of those asked for, in any order."""
        process = await self._process(collection)
        names = None if fields is None else list(fields)
        points: list[wire.Point] = []
        for start in range(0, len(ids), READ_POINTS):
            call = wire.Retrieve(list(ids[start : start + READ_POINTS]), names, vectors)
            points += await process.call(call, list[wire.Point], deadline)
        return points

    async def scroll(
        self,
        collection: str,
        selection: wire.Selection,
        limit: int,
        deadline: Deadline,
        *,
        start_id: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> wire.Slice:
        """Points in the order of their ids, from `start_id` on, a few at a time."""
        process = await self._process(collection)
        names = None if fields is None else list(fields)
        points: list[wire.Point] = []
        while True:
            most = min(limit - len(points), READ_POINTS)
            call = wire.Scroll(selection, most, start_id, names)
            part = await process.call(call, wire.Slice, deadline)
            points += part.points
            start_id = part.next_id
            if start_id is None or len(points) >= limit:
                return wire.Slice(points, start_id)

    async def _write(self, process: StoreProcess, call: wire.Write, deadline: Deadline) -> None:
        async with self._writing:
            await process.call(call, type(None), deadline)

    async def _process(self, collection: str) -> StoreProcess:
        process = self._processes.get(collection)
        if process is not None:
            return process
        path = self._pointer_path(collection)
        if not path.exists():
            raise no_collection(collection)
        return await self._open(collection, _read_pointer(path), create=False)

    async def _open(self, collection: str, pointer: Pointer, *, create: bool) -> StoreProcess:
        async with self._opening:
            if collection not in self._processes:
                directory = self._directory(collection, pointer.live)
                if not create and not directory.exists():
                    raise unavailable(
                        f"DATA_DIR: the files of the collection '{collection}' are missing "
                        f"(generation {pointer.live}). Restore them, or delete its folder "
                        "to begin afresh."
                    )
                process = StoreProcess(directory, pointer.config)
                try:
                    await process.start(create=create)
                except Locked:
                    raise FolderInUse from None
                self._processes[collection] = process
            return self._processes[collection]

    def _directory(self, collection: str, generation: int) -> Path:
        return self._root / collection / str(generation)

    def _pointer_path(self, collection: str) -> Path:
        return self._root / collection / POINTER_NAME


def _read_pointer(path: Path) -> Pointer:
    return msgspec.json.decode(path.read_bytes(), type=Pointer)


def _write_pointer(path: Path, pointer: Pointer) -> None:
    """Atomic and durable: the old pointer or the new one, whatever happens."""
    unfinished = path.with_suffix(".new")
    with unfinished.open("wb") as file:
        file.write(msgspec.json.encode(pointer))
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    # Its folder and those above, up to DATA_DIR, which may be as new as the pointer is.
    for folder in path.parents[:3]:
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
