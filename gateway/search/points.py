"""The one interface of the store, and what its two adapters have in common.

`embedded.EmbeddedPoints` speaks to the engine in a process of its own, `server.ServerPoints`
to a Qdrant server. One conformance suite (tests/integration/search) holds both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.search import wire
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

# A store that went away is back within about this time, or not at all.
RETRY_AFTER_S: Final = 1.0
# What callers are told of a fault that nobody foresaw.
FAILED: Final = "The vector store failed inside; the log holds the cause."


# Of a collection that is made.
FIRST_GENERATION: Final = 1
# One slice of a whole generation holds the store for about 2 ms; searches go in between.
SLICE_POINTS: Final = 256
SLICE_TIMEOUT_S: Final = 10.0
# Between the name of a collection, which cannot hold it, and the number of a generation.
_SEPARATOR: Final = "@"


@dataclass(frozen=True, slots=True)
class Generations:
    """The generations of a collection by number: the live one, and the others, ascending."""

    live: int
    others: tuple[int, ...] = ()


def at(collection: str, generation: int) -> str:
    """The address of one generation, live or not: `documents@3`."""
    return f"{collection}{_SEPARATOR}{generation}"


def split(address: str) -> tuple[str, int | None]:
    """The collection of an address, and the generation if it names one.

    Raises ServiceError COLLECTION_NOT_FOUND where a number should be and is none.
    """
    collection, separator, number = address.partition(_SEPARATOR)
    if not separator:
        return collection, None
    if not (number.isascii() and number.isdecimal()):
        raise no_collection(address)
    return collection, int(number)


class Points(Protocol):
    """Points of collections, each of which has generations, one of them live.

    An `address` is the name of a collection, which stands for the generation that is live at
    that moment, or that of one generation, live or not: see `at`.

    Every call raises ServiceError VECTOR_DB_UNAVAILABLE when the store cannot be reached,
    breaks off or fails, DEADLINE_EXCEEDED when time ran out (a write may then have
    happened), and COLLECTION_NOT_FOUND where there is no such collection or generation,
    `collection` being the address. A write that returned is durable, and every later read
    sees it.
    """

    # Whether this gateway alone can write, so that what it knows cannot be out of date.
    exclusive: bool

    @property
    def broken(self) -> bool:
        """Whether the store is this gateway's own and cannot be brought back."""
        ...

    async def start(self) -> None:
        """Connects. An embedded store raises ResourceTaken for a folder that cannot be written."""
        ...

    async def aclose(self) -> None:
        """Flushes and lets go of everything. No call may follow."""
        ...

    async def ping(self, deadline: Deadline) -> None:
        """Returns when the store answers."""
        ...

    async def collections(self, deadline: Deadline) -> list[str]:
        """The collections that have a live generation, sorted."""
        ...

    async def generations(self, collection: str, deadline: Deadline) -> Generations:
        """The generations that are there."""
        ...

    async def create(self, collection: str, config: wire.Config, deadline: Deadline) -> None:
        """Makes the first generation, live, with its payload indexes.

        In a collection that exists, every generation gets these indexes in place of its own.
        """
        ...

    async def create_generation(
        self, collection: str, generation: int, config: wire.Config, deadline: Deadline
    ) -> None:
        """Makes an empty generation with its indexes, not live; one of that number is removed.

        Raises ValueError for the live one.
        """
        ...

    async def switch(self, collection: str, generation: int, deadline: Deadline) -> None:
        """Makes this generation the live one, atomically and durably; the old one stays."""
        ...

    async def drop_generation(self, collection: str, generation: int, deadline: Deadline) -> None:
        """Removes a generation; one that is not there, or whose collection is not, is fine.

        Calls under way in it fail with COLLECTION_NOT_FOUND. Raises ValueError for the live one.
        """
        ...

    async def drop(self, collection: str, deadline: Deadline) -> None:
        """Removes the collection with all its generations."""
        ...

    async def optimize(self, address: str, deadline: Deadline) -> None:
        """Returns once the generation answers searches as fast as it can.

        The embedded store finds nothing there in the meantime, which is about a minute for
        200,000 chunks: give it the time, and never ask for it in a generation that is read.
        """
        ...

    async def upsert(self, address: str, points: Sequence[wire.Point], deadline: Deadline) -> None:
        """Writes points, whatever was there."""
        ...

    async def swap(
        self, address: str, point: wire.Point, seq: int | None, deadline: Deadline
    ) -> None:
        """Writes `point` if the stored one has this `seq`, or (None) if there is none.

        Whether it did is not said: read it back.
        """
        ...

    async def advance(self, address: str, point: wire.Point, seq: int, deadline: Deadline) -> None:
        """Writes `point`, whose `seq` is this one, if there is none or one with a lower `seq`.

        Whether it did is not said: read it back.
        """
        ...

    async def set_payload(
        self, address: str, point_id: str, payload: dict[str, Any], deadline: Deadline
    ) -> None:
        """Overwrites some payload fields of one point that exists."""
        ...

    async def delete(self, address: str, selection: wire.Selection, deadline: Deadline) -> None:
        """Removes the points selected."""
        ...

    async def query(self, address: str, query: wire.Query, deadline: Deadline) -> wire.Found:
        """The nearest chunks whose version is their record's; scores as in `scores`."""
        ...

    async def count(self, address: str, selection: wire.Selection, deadline: Deadline) -> int:
        """How many points are selected, exactly."""
        ...

    async def retrieve(
        self,
        address: str,
        ids: Sequence[str],
        deadline: Deadline,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> list[wire.Point]:
        """The points that exist of those asked for, in any order."""
        ...

    async def scroll(
        self,
        address: str,
        selection: wire.Selection,
        limit: int,
        deadline: Deadline,
        *,
        start_id: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> wire.Slice:
        """Points in the order of their ids, from `start_id` on."""
        ...


class FolderInUse(ServiceError):
    """Another process holds the folder of the embedded store."""

    def __init__(self) -> None:
        super().__init__(
            Reason.VECTOR_DB_UNAVAILABLE,
            "DATA_DIR: another process uses the data folder; stop that one, or set another folder.",
            RETRY_AFTER_S,
        )


def unavailable(message: str = "The vector store cannot be reached.") -> ServiceError:
    """The error of a store that is not there."""
    return ServiceError(Reason.VECTOR_DB_UNAVAILABLE, message, RETRY_AFTER_S)


def no_collection(name: str) -> ServiceError:
    """The error of a collection or generation that does not exist."""
    return ServiceError(
        Reason.COLLECTION_NOT_FOUND, f"There is no collection '{name}'.", collection=name
    )
