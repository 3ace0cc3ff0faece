"""Documents in: cut, embedded and written, each on its own, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import msgspec

from gateway.batches import EMBED_CALLS
from gateway.cache.vectors import Embedder
from gateway.chunking import most_chunks
from gateway.preparing import Preparer
from gateway.search.collections import DEFAULT_CHUNKING
from gateway.search.search import Search
from gateway.search.types import Chunking, Model, Stamp, Target
from gateway.search.versions import NewVersion, Record
from gateway.text import text_sha256
from gateway.window import WINDOW_CHUNKS, Window
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError
from runtime.groups import task_group

# A document of 2,000,000 characters at the smallest chunk size with half of it overlapping.
MOST_CHUNKS: Final = 65_536
LONG_TEXT_CHARACTERS: Final = 100_000


@dataclass(frozen=True, slots=True)
class NewDocument:
    """What is to be indexed."""

    id: str
    text: str
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DocumentResult:
    """What became of a document.

    truncated_chunks: chunks longer than the embedding model reads; their vector leaves
        out the end.
    """

    id: str
    status: Literal["added", "replaced", "unchanged"]
    chunks: int
    truncated_chunks: int


@dataclass(frozen=True, slots=True)
class IndexOutcome:
    """One result per document, in the order given. born_at: of the collection that has them."""

    results: list[DocumentResult]
    born_at: int


class Documents:
    """Documents to index, in order. Each is made when its turn comes, and given away once.

    characters: of each text, in the same order.
    """

    def __init__(self, characters: Sequence[int], documents: Iterable[NewDocument]) -> None:
        self.characters = characters
        self._documents = iter(documents)

    def __len__(self) -> int:
        return len(self.characters)

    def __iter__(self) -> Iterator[NewDocument]:
        return self._documents

    @classmethod
    def of(cls, documents: Sequence[NewDocument]) -> Documents:
        """Those of a list."""
        return cls([len(document.text) for document in documents], documents)


class Indexer:
    """Indexes documents. batch_size: most texts in one call to the embedder."""

    def __init__(self, search: Search, embedder: Embedder, *, batch_size: int) -> None:
        self._search = search
        self._embedder = embedder
        self._batch_size = batch_size
        self._window = Window(WINDOW_CHUNKS)
        # Enough documents of one chunk to fill every call, twice: more would only wait for the
        # store, and for so long that their writes run out of time.
        self._least_size = max(1, WINDOW_CHUNKS // (2 * EMBED_CALLS * batch_size))

    async def index(
        self,
        collection: str,
        documents: Documents | Sequence[NewDocument],
        chunking: Chunking | None,
        deadline: Deadline,
        *,
        born_at: int | None = None,
        settled: Callable[[DocumentResult, int], None] = lambda result, born_at: None,
    ) -> IndexOutcome:
        """Every document durable, or an error; those completed before the error stay.

        chunking: None takes the collection's own. A document of the same text, metadata,
        chunking and model is left alone; of the others only chunks whose text is new are
        embedded. Cancelled or out of time it stops between documents, never inside one.
        born_at: of the collection that has what was indexed before; None makes one that is
        not there.
        settled: told of each document as soon as it is durable, and the collection's `born_at`.
        Raises ServiceError MODEL_MISMATCH, INVALID_ARGUMENT (before anything is written),
        COLLECTION_NOT_FOUND when the collection was deleted after `born_at` or meanwhile, so
        that the documents are not all in one, and what the store and the embedder raise.
        """
        if not isinstance(documents, Documents):
            documents = Documents.of(documents)
        stamp = await self._claimed(collection, documents, chunking, deadline, born_at)
        own = stamp.chunking
        preparer = Preparer(self._search, self._embedder, batch_size=self._batch_size)
        job = _Job(self._search, preparer, collection, chunking, own, deadline)

        async def index_one(document: NewDocument) -> DocumentResult:
            result = await job.index(document)
            settled(result, stamp.born_at)
            return result

        tasks: list[asyncio.Task[DocumentResult]] = []
        try:
            async with task_group() as group:
                for document in documents:
                    # As many at once as the window takes; the next is not even decoded before.
                    chunks = most_chunks(len(document.text), chunking or own)
                    size = max(chunks, self._least_size)
                    await self._window.enter(size)
                    task = group.create_task(index_one(document))
                    task.add_done_callback(partial(self._leave, size))
                    tasks.append(task)
        finally:
            await preparer.aclose()
        if len(tasks) > 1 or born_at is not None:
            now = await self._search.stamp(collection, deadline, fresh=True)
            check_born(collection, now, stamp.born_at)
        return IndexOutcome([task.result() for task in tasks], stamp.born_at)

    def _leave(self, size: int, _: asyncio.Task[DocumentResult]) -> None:
        self._window.leave(size)

    async def _claimed(
        self,
        collection: str,
        documents: Documents,
        chunking: Chunking | None,
        deadline: Deadline,
        born_at: int | None,
    ) -> Stamp:
        """The collection's stamp, once it is known to take the documents.

        A collection that is not there is made: with the first embedder's model.
        """
        try:
            stamp = await self._search.stamp(collection, deadline)
        except ServiceError as error:
            if error.reason is not Reason.COLLECTION_NOT_FOUND or born_at is not None:
                raise
            check_sizes(documents.characters, chunking or DEFAULT_CHUNKING)
        else:
            if born_at is not None:
                check_born(collection, stamp, born_at)
            check_sizes(documents.characters, chunking or stamp.chunking)
            if stamp.model is not None:
                await self._embedder.require(stamp.model.fingerprint, deadline)
                return stamp
        identity = await self._embedder.model(deadline)
        model = Model(identity.name, identity.fingerprint, identity.dimension)
        return await self._search.ensure(collection, model, chunking, deadline)


@dataclass(frozen=True, slots=True)
class _Job:
    """One request's documents. own: the collection's chunking, where the request names none."""

    search: Search
    preparer: Preparer
    collection: str
    chunking: Chunking | None
    own: Chunking
    deadline: Deadline

    async def index(self, document: NewDocument) -> DocumentResult:
        """One document, from text to durable."""
        self.deadline.share_s()
        known = await self.search.record(self.collection, document.id, self.deadline)
        made: list[NewVersion] = []

        async def prepare(target: Target) -> NewVersion:
            if self.chunking is not None:
                target = replace(target, chunking=self.chunking)
            made.append(await self.preparer.prepare(document, target, self.deadline))
            return made[-1]

        if (
            known is not None
            and await self._is_unchanged(document, known)
            # A write that broke off may have left it; it has to be where a rebuild switches to.
            and await self.search.settle(self.collection, known, prepare, self.deadline)
        ):
            return DocumentResult(document.id, "unchanged", known.chunks, known.truncated)
        made.clear()
        status = await self.search.put_document(
            self.collection, document.id, prepare, self.deadline
        )
        chunks = made[0].chunks  # the live generation comes first
        truncated = sum(chunk.truncated for chunk in chunks)
        return DocumentResult(document.id, status, len(chunks), truncated)

    async def _is_unchanged(self, document: NewDocument, known: Record) -> bool:
        # The model is the collection's, which has been compared already.
        chunking = self.chunking or self.own
        if (known.chunk_size, known.overlap) != (chunking.chunk_size, chunking.overlap):
            return False
        if _canonical(known.metadata) != _canonical(document.metadata):
            return False
        return known.content_sha256 == await _sha256(document.text)


def _canonical(metadata: dict[str, Any]) -> bytes:
    """Tells apart what Python's `==` does not: `true`, `1` and `1.0`."""
    return msgspec.json.encode(metadata, order="deterministic")


async def _sha256(text: str) -> str:
    """Of a long text in a thread: 2,000,000 characters take some milliseconds."""
    if len(text) <= LONG_TEXT_CHARACTERS:
        return text_sha256(text)
    return await asyncio.to_thread(text_sha256, text)


def check_born(collection: str, stamp: Stamp, born_at: int) -> None:
    """Raises ServiceError COLLECTION_NOT_FOUND for a collection that was deleted and made anew."""
    if stamp.born_at != born_at:
        raise ServiceError(
            Reason.COLLECTION_NOT_FOUND,
            f"The collection '{collection}' was deleted while documents were indexed into it.",
            collection=collection,
        )


def check_sizes(characters: Iterable[int], chunking: Chunking) -> None:
    """Raises ServiceError INVALID_ARGUMENT for texts of which the store could not keep all chunks.

    characters: of the text of each document of a request, in order.
    """
    for position, length in enumerate(characters):
        if most_chunks(length, chunking) > MOST_CHUNKS:
            raise ServiceError(
                Reason.INVALID_ARGUMENT,
                f"Would be cut into more than {MOST_CHUNKS} chunks; "
                "take a larger chunk_size or a smaller overlap.",
                field=f"documents[{position}].text",
            )
