"""The one interface of the store, and what its two adapters have in common.

`embedded.EmbeddedPoints` speaks to the engine in a process of its own, `server.ServerPoints`
to a Qdrant server. One conformance suite (tests/integration/search) holds both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from gateway.search import wire
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

# A store that went away is back within about this time, or not at all.
RETRY_AFTER_S: Final = 1.0
# What callers are told of a fault that nobody foresaw.
FAILED: Final = "The vector store failed inside; the log holds the cause."


class Points(Protocol):
    """Points of collections. A collection is a name for its live generation.

    Every call raises ServiceError VECTOR_DB_UNAVAILABLE when the store cannot be reached,
    breaks off or fails, DEADLINE_EXCEEDED when time ran out (a write may then have
    happened), and COLLECTION_NOT_FOUND where there is no such collection. A write that
    returned is durable, and every later read sees it.
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

    async def create(self, collection: str, config: wire.Config, deadline: Deadline) -> None:
        """Makes the first generation with its indexes; one that exists gets missing indexes."""
        ...

    async def upsert(
        self, collection: str, points: Sequence[wire.Point], deadline: Deadline
    ) -> None:
        """Writes points, whatever was there."""
        ...

    async def swap(
        self, collection: str, point: wire.Point, seq: int | None, deadline: Deadline
    ) -> None:
        """Writes `point` if the stored one has this `seq`, or (None) if there is none.

        Whether it did is not said: read it back.
        """
        ...

    async def set_payload(
        self, collection: str, point_id: str, payload: dict[str, Any], deadline: Deadline
    ) -> None:
        """Overwrites some payload fields of one point that exists."""
        ...

    async def delete(self, collection: str, selection: wire.Selection, deadline: Deadline) -> None:
        """Removes the points selected."""
        ...

    async def query(self, collection: str, query: wire.Query, deadline: Deadline) -> wire.Found:
        """The nearest chunks whose version is their record's; scores as in `scores`."""
        ...

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
        ...

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
    """The error of a collection that does not exist."""
    return ServiceError(
        Reason.COLLECTION_NOT_FOUND, f"There is no collection '{name}'.", collection=name
    )
