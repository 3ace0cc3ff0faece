"""A collection's folder in the embedded store: its generations, and the pointer to the live one.

    current.json    the pointer
    <n>/            the engine's files of generation n
    <n>.lock        locked by the process that has them open

The pointer alone says which generations there are. It is replaced atomically, after what it
newly names is whole, and before what it no longer names is removed: what a crash leaves
behind is what the pointer does not name, and goes at the next start.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from shutil import rmtree
from typing import Final

import msgspec

from gateway.files import sync_folder, write_durably
from gateway.search import wire
from gateway.search.locks import LOCK_WAIT_S, hold_within, lock_path
from gateway.search.points import unavailable

POINTER_NAME: Final = "current.json"
UNFINISHED: Final = ".new"
# What `clear` may remove: nothing that an operator put beside it.
_OURS: Final = re.compile(r"(\d+)(\.new|\.lock)?")


class Pointer(msgspec.Struct, frozen=True):
    """The generations of a collection, and what each is made with.

    live: 0 while the collection is being made or removed: then there are none.
    config: of the live one.
    """

    live: int
    config: wire.Config
    others: dict[int, wire.Config] = {}

    @property
    def generations(self) -> dict[int, wire.Config]:
        """All generations by number."""
        return {self.live: self.config, **self.others} if self.live else {}

    def adding(self, generation: int, config: wire.Config) -> Pointer:
        """With one more, not live."""
        return Pointer(self.live, self.config, {**self.others, generation: config})

    def without(self, generation: int) -> Pointer:
        """Without one that is not live."""
        others = {number: config for number, config in self.others.items() if number != generation}
        return Pointer(self.live, self.config, others)

    def switched(self, generation: int) -> Pointer:
        """With another one live."""
        others = {**self.without(generation).others, self.live: self.config}
        return Pointer(generation, self.others[generation], others)

    def indexed(self, indexes: dict[str, wire.IndexKind]) -> Pointer:
        """With these payload indexes in every generation."""
        return Pointer(
            self.live,
            _indexed(self.config, indexes),
            {number: _indexed(config, indexes) for number, config in self.others.items()},
        )


class Folder:
    """The files of one collection. Calls block, and raise OSError.

    One process at a time may have it: see `EmbeddedPoints.start`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pointer: Pointer | None = None

    @property
    def pointer(self) -> Pointer:
        """The pointer as it is on disk; `load` or `begin` comes first."""
        if self._pointer is None:
            raise RuntimeError("neither loaded nor begun")
        return self._pointer

    def directory(self, generation: int) -> Path:
        """Where the files of a generation are."""
        return self.path / str(generation)

    def load(self) -> bool:
        """Reads the pointer and clears up after a crash; False if there is no collection.

        Raises ServiceError VECTOR_DB_UNAVAILABLE for a pointer that cannot be read, Locked
        when a process of the last run does not let go of what is to be removed.
        """
        try:
            data = (self.path / POINTER_NAME).read_bytes()
        except FileNotFoundError:
            self._clear_beginning()
            return False
        try:
            self._pointer = msgspec.json.decode(data, type=Pointer)
        except msgspec.DecodeError as error:
            raise unavailable(
                f"DATA_DIR: {POINTER_NAME} of the collection '{self.path.name}' is damaged. "
                "Restore it, or delete the collection's folder to begin afresh."
            ) from error
        if not self._pointer.live:
            self.remove()
            return False
        self._clear()
        return True

    def begin(self, config: wire.Config) -> None:
        """Makes the folder of a collection without any generation.

        Raises ServiceError VECTOR_DB_UNAVAILABLE when there are generations, but no pointer:
        people lost it, and an empty collection must not take their place.
        """
        if any(self.directory(number).is_dir() for number in self._numbers()):
            raise unavailable(
                f"DATA_DIR: {POINTER_NAME} of the collection '{self.path.name}' is missing. "
                "Restore it, or delete the collection's folder to begin afresh."
            )
        self.path.mkdir(exist_ok=True)
        self.commit(Pointer(0, config))

    def commit(self, pointer: Pointer) -> None:
        """Replaces the pointer: the old one or the new one, whatever happens."""
        write_durably(self.path / POINTER_NAME, msgspec.json.encode(pointer))
        # The folders above may be as new as the pointer: the store's, and DATA_DIR.
        for folder in self.path.parents[:2]:
            sync_folder(folder)
        self._pointer = pointer

    def remove_generation(self, generation: int) -> None:
        """Removes the files of a generation that the pointer does not name, if there are any.

        Raises Locked when a process of the last run does not let go of them.
        """
        directory = self.directory(generation)
        lock = hold_within(directory, LOCK_WAIT_S)
        try:
            for path in (directory, directory.with_name(directory.name + UNFINISHED)):
                if path.exists():
                    rmtree(path)
            lock_path(directory).unlink()
        finally:
            os.close(lock)

    def remove(self) -> None:
        """Removes the folder, whose pointer names nothing. The pointer goes last."""
        for number in self._numbers():
            self.remove_generation(number)
        rmtree(self.path)

    def _clear_beginning(self) -> None:
        """Removes the folder of a collection that was begun: nothing is in it yet."""
        with contextlib.suppress(OSError):  # there is none, or what people put into it
            (self.path / (POINTER_NAME + UNFINISHED)).unlink(missing_ok=True)
            self.path.rmdir()

    def _clear(self) -> None:
        """Removes generations that the pointer does not name."""
        (self.path / (POINTER_NAME + UNFINISHED)).unlink(missing_ok=True)
        named = self.pointer.generations
        if not all(self.directory(number).is_dir() for number in named):
            return  # files are missing: whoever looks for them needs all that is there
        for number in self._numbers() - named.keys():
            self.remove_generation(number)

    def _numbers(self) -> set[int]:
        """The generations of which there is anything in the folder."""
        if not self.path.is_dir():
            return set()
        found = (_OURS.fullmatch(entry.name) for entry in self.path.iterdir())
        return {int(match[1]) for match in found if match}


def _indexed(config: wire.Config, indexes: dict[str, wire.IndexKind]) -> wire.Config:
    return msgspec.structs.replace(config, indexes=indexes)
