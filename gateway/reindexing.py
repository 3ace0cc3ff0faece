"""Rebuilds a collection beside the live one, from its kept source texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.search.records import NewVersion
from gateway.search.search import Search
from gateway.search.types import Chunking, Model, Target
from runtime.deadline import Deadline

# Documents done so far, and how many there are in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A document as it was given: what a new version of it is made from."""

    id: str
    text: str
    metadata: dict[str, Any]


class Preparer(Protocol):
    """Cuts and embeds, in the bulk lane."""

    async def prepare(
        self, document: SourceDocument, target: Target, deadline: Deadline
    ) -> NewVersion:
        """The document cut by `target.chunking` and embedded by `target.model`.

        Vectors that the live generation of `target.collection` has of the same text by the
        same model are taken from there.
        """
        ...

    async def model(self, deadline: Deadline) -> Model:
        """The model that a rebuild is to use."""
        ...


class Reindexer:
    """Rebuilds of collections, one job each."""

    def __init__(self, search: Search, preparer: Preparer) -> None:
        self._search = search
        self._preparer = preparer

    async def check(self, collection: str, chunking: Chunking | None, deadline: Deadline) -> None:
        """Raises at once what cannot be.

        ServiceError COLLECTION_NOT_FOUND, REINDEX_RUNNING when another job builds the next
        generation, INVALID_ARGUMENT for a chunking that does not fit, and what the embedder
        raises when it is not there.
        """
        raise NotImplementedError

    async def run(
        self, collection: str, chunking: Chunking | None, job_id: str, progress: Progress
    ) -> None:
        """Builds the next generation and switches to it; goes on where a run of this job ended.

        Raises ServiceError. One that failed may be run again, or has to be given up by
        `abandon`; cancelled likewise.
        """
        raise NotImplementedError

    async def abandon(self, collection: str, job_id: str) -> None:
        """Gives up what the job has built; nothing of it stays. Unless it is live already."""
        raise NotImplementedError
