"""Documents in: cut, embedded and written, each on its own, many at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import numpy as np

from gateway.cache.vectors import Embedder
from gateway.chunking import cut, most_chunks
from gateway.search.records import NewChunk, NewVersion, Record
from gateway.search.search import Search
from gateway.search.types import Chunking, Model, Target
from gateway.text import normalise, text_sha256
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

# Calls to the embedder at once, of one request: enough that it never waits for us.
EMBED_CALLS: Final = 4
# Chunks of documents under way, over all requests: bounds the memory that vectors take
# (1.5 KiB each at 384 dimensions, twice) and keeps every call to the embedder full.
WINDOW_CHUNKS: Final = 4096
# A document of 2,000,000 characters at the smallest chunk size with half of it overlapping.
MOST_CHUNKS: Final = 65_536


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
    """One result per document, in the order given."""

    results: list[DocumentResult]


class Indexer:
    """Indexes documents. batch_size: most texts in one call to the embedder."""

    def __init__(self, search: Search, embedder: Embedder, *, batch_size: int) -> None:
        self._search = search
        self._embedder = embedder
        self._batch_size = batch_size
        self._window = _Window(WINDOW_CHUNKS)

    async def index(
        self,
        collection: str,
        documents: Sequence[NewDocument],
        chunking: Chunking | None,
        deadline: Deadline,
    ) -> IndexOutcome:
        """Every document durable, or an error; those completed before the error stay.

        chunking: None takes the collection's own. A document of the same text, metadata,
        chunking and model is left alone; of the others only chunks whose text is new are
        embedded. Cancelled or out of time it stops between documents, never inside one.
        Raises ServiceError MODEL_MISMATCH, INVALID_ARGUMENT (before anything is written),
        and what the store and the embedder raise.
        """
        stamp = await self._search.stamp(collection, deadline)
        chunking = chunking or stamp.chunking
        check_documents(documents, chunking)
        identity = await self._embedder.model(deadline)
        model = Model(identity.name, identity.fingerprint, identity.dimension)
        await self._search.claim(collection, model, deadline)
        batches = _Batches(self._embedder, self._batch_size, model.fingerprint, deadline)
        job = _Job(self._search, batches, collection, chunking, deadline)
        workers = [asyncio.create_task(batches.work()) for _ in range(EMBED_CALLS)]
        tasks: list[asyncio.Task[DocumentResult]] = []
        try:
            for document in documents:
                tasks.append(asyncio.create_task(self._in_window(job, document)))
            return IndexOutcome(await asyncio.gather(*tasks))
        finally:
            for task in (*tasks, *workers):
                task.cancel()
            await asyncio.wait((*tasks, *workers))

    async def _in_window(self, job: _Job, document: NewDocument) -> DocumentResult:
        size = most_chunks(len(document.text), job.chunking)
        await self._window.enter(size)
        try:
            return await job.index(document)
        finally:
            self._window.leave(size)


@dataclass(frozen=True, slots=True)
class _Job:
    """One request's documents."""

    search: Search
    batches: _Batches
    collection: str
    chunking: Chunking
    deadline: Deadline

    async def index(self, document: NewDocument) -> DocumentResult:
        """One document, from text to durable."""
        self.deadline.share_s()
        known = await self.search.record(self.collection, document.id, self.deadline)
        sha256 = text_sha256(document.text)
        if known is not None and self._is_unchanged(document, sha256, known):
            return DocumentResult(document.id, "unchanged", known.chunks, known.truncated)
        texts = await asyncio.to_thread(cut, document.text, self.chunking)
        chunks = await self._embedded(texts, known)
        new = NewVersion(
            document.id, document.text, document.metadata, sha256, self.chunking, chunks
        )

        async def prepare(target: Target) -> NewVersion:
            return new

        status = await self.search.put_document(
            self.collection, document.id, prepare, self.deadline
        )
        truncated = sum(chunk.truncated for chunk in chunks)
        return DocumentResult(document.id, status, len(chunks), truncated)

    def _is_unchanged(self, document: NewDocument, sha256: str, known: Record) -> bool:
        # The model is the collection's, which has been compared already.
        return (
            known.content_sha256 == sha256
            and _canonical(known.metadata) == _canonical(document.metadata)
            and (known.chunk_size, known.overlap)
            == (self.chunking.chunk_size, self.chunking.overlap)
        )

    async def _embedded(self, texts: Sequence[str], known: Record | None) -> list[NewChunk]:
        """The chunks with their vectors: those of the version before where the text is the same."""
        normalised = [normalise(text) for text in texts]
        hashes = [text_sha256(text) for text in normalised]
        vectors: dict[str, tuple[bytes, bool]] = {}
        if known is not None:
            vectors = await self.search.vectors(self.collection, known, self.deadline)
        missing = {
            sha256: text
            for sha256, text in zip(hashes, normalised, strict=True)
            if sha256 not in vectors
        }
        made = await self.batches.embed(list(missing.values()))
        vectors.update(zip(missing, made, strict=True))
        return [
            NewChunk(text, sha256, *vectors[sha256])
            for text, sha256 in zip(texts, hashes, strict=True)
        ]


class _Batches:
    """Texts of many documents in calls of `size`; a free worker takes what there is."""

    def __init__(self, embedder: Embedder, size: int, fingerprint: str, deadline: Deadline) -> None:
        self._embedder = embedder
        self._size = size
        self._fingerprint = fingerprint
        self._deadline = deadline
        self._texts: deque[tuple[str, asyncio.Future[tuple[bytes, bool]]]] = deque()
        self._arrived = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> list[tuple[bytes, bool]]:
        """(little-endian float32, truncated) of each text."""
        if not texts:
            return []
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in texts]
        self._texts.extend(zip(texts, futures, strict=True))
        self._arrived.set()
        return list(await asyncio.gather(*futures))

    async def work(self) -> None:
        """Serves until cancelled."""
        while True:
            while not self._texts:
                self._arrived.clear()
                await self._arrived.wait()
            # Lets documents that have just become ready add theirs: fuller calls.
            await asyncio.sleep(0)
            batch = [self._texts.popleft() for _ in range(min(self._size, len(self._texts)))]
            if batch:
                await self._call(batch)

    async def _call(self, batch: list[tuple[str, asyncio.Future[tuple[bytes, bool]]]]) -> None:
        try:
            made = await self._embedder.embed(
                [text for text, _ in batch],
                input_type="passage",
                lane="bulk",
                fingerprint=self._fingerprint,
                deadline=self._deadline,
            )
            rows = np.ascontiguousarray(made.vectors, "<f4")
            results = [(rows[at].tobytes(), at in made.truncated) for at in range(len(batch))]
        except Exception as error:  # whatever it is, those who wait for it must hear of it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


class _Window:
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


def _canonical(metadata: dict[str, Any]) -> bytes:
    """Tells apart what Python's `==` does not: `true`, `1` and `1.0`."""
    return msgspec.json.encode(metadata, order="deterministic")


def check_documents(documents: Sequence[NewDocument], chunking: Chunking) -> None:
    """Raises ServiceError INVALID_ARGUMENT for what the store could not keep."""
    for position, document in enumerate(documents):
        if most_chunks(len(document.text), chunking) > MOST_CHUNKS:
            raise ServiceError(
                Reason.INVALID_ARGUMENT,
                f"Would be cut into more than {MOST_CHUNKS} chunks; "
                "take a larger chunk_size or a smaller overlap.",
                field=f"documents[{position}].text",
            )
