"""Stores for tests: both adapters, real, and an embedder whose vectors are hashes of texts."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from qdrant_client import AsyncQdrantClient

from gateway.clients import Embeddings, InputType, Lane, ModelIdentity
from gateway.embedders import mismatch
from gateway.search import ids, wire
from gateway.search.embedded import EmbeddedPoints
from gateway.search.plan import Plan
from gateway.search.points import Points
from gateway.search.process import StoreProcess
from gateway.search.records import Status
from gateway.search.search import Search
from gateway.search.server import ServerPoints, connect
from gateway.search.types import Bm25, Chunking, Model, Target
from gateway.search.versions import NewChunk, NewVersion
from gateway.text import text_sha256
from runtime.deadline import Deadline
from runtime.errors import ServiceError

DIMENSION = 16
COLLECTION = "documents"
MODEL = Model("test-model", "f1", DIMENSION)
SERVER_URL = os.environ.get("QDRANT_TEST_URL")
SERVER_GRPC_PORT = int(os.environ.get("QDRANT_GRPC_PORT", "6334"))
# The in-memory client runs the server adapter's very calls; a server joins when there is one.
ADAPTERS = ["embedded", "memory", *(["server"] if SERVER_URL else [])]


# What generations of short vectors are made with.
CONFIG = wire.Config(DIMENSION, 1.2, 0.75, 64.0, "english", {"kind": "keyword"})


def a_stamp() -> wire.Point:
    """What a generation must hold before points with texts are written to it."""
    bm25 = Bm25(average_tokens=CONFIG.average_tokens)
    payload = {"kind": "stamp", "seq": 1, "bm25": msgspec.to_builtins(bm25)}
    return wire.Point(ids.STAMP_ID, payload)


def soon() -> Deadline:
    """Long enough for a busy machine, short enough for a hang to be seen."""
    return Deadline.after(30)


def _connect() -> AsyncQdrantClient:
    return connect(str(SERVER_URL), api_key=None, grpc_port=SERVER_GRPC_PORT)


@asynccontextmanager
async def open_points(adapter: str, folder: Path) -> AsyncIterator[tuple[Points, str]]:
    """The adapter, and the name of a collection that it does not have yet."""
    if adapter == "embedded":
        embedded = EmbeddedPoints(folder)
        await embedded.start()
        try:
            yield embedded, COLLECTION
        finally:
            await embedded.aclose()
        return
    if adapter == "memory":
        memory = ServerPoints(AsyncQdrantClient(":memory:"))
        try:
            yield memory, COLLECTION
        finally:
            await memory.aclose()
        return
    name = f"test-{uuid.uuid4().hex[:12]}"
    server = ServerPoints(_connect())
    try:
        yield server, name
    finally:
        await server.aclose()
        cleaning = _connect()
        for made in (await cleaning.get_collections()).collections:
            if made.name.startswith(name):  # neighbours and all generations, live or not
                await cleaning.delete_collection(made.name)
        await cleaning.close()


def a_plan(collection: str = COLLECTION, **indexes: wire.IndexKind) -> Plan:
    """A store of short vectors."""
    return Plan(
        collection=collection,
        dimension=DIMENSION,
        bm25=Bm25(),
        indexes=indexes,
        concurrency=10,
        prefetch=50,
        fusion_k=10,
    )


@asynccontextmanager
async def embedded_search(folder: Path) -> AsyncIterator[Search]:
    """The embedded store, opened and closed."""
    search = Search(EmbeddedPoints(folder), a_plan())
    try:
        await search.start()
        yield search
    finally:
        await search.aclose()


def vector_of(text: str) -> npt.NDArray[np.float32]:
    """A unit vector that only depends on the text: different texts are far apart."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def version(document_id: str, *texts: str, **metadata: Any) -> NewVersion:
    """A document of these chunks."""
    whole = "\n\n".join(texts)
    chunks = [
        NewChunk(text, text_sha256(text), wire.pack(vector_of(text).tolist()), False)
        for text in texts
    ]
    return NewVersion(document_id, whole, metadata, text_sha256(whole), Chunking(512, 50), chunks)


async def put(search: Search, collection: str, new: NewVersion) -> Status:
    """Writes `new` in every generation, as it is."""

    async def prepare(target: Target) -> NewVersion:
        return new

    await search.claim(collection, MODEL, soon())
    return await search.put_document(collection, new.document_id, prepare, soon())


async def count(points: Points, collection: str, *must: wire.Condition) -> int:
    """How many points meet the conditions; they must fit a page."""
    part = await points.scroll(collection, wire.Selection(must), 1000, soon(), fields=["kind"])
    assert part.next_id is None
    return len(part.points)


def process_of(search: Search) -> StoreProcess:
    """The process of the embedded store's default collection."""
    points = search._points
    assert isinstance(points, EmbeddedPoints)
    process = points.process(COLLECTION)
    assert process is not None
    return process


async def until_back(search: Search) -> None:
    """Waits for a store that is being started again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await search.ping()
            except ServiceError:
                await asyncio.sleep(0.02)
            else:
                return


class HashEmbedder:
    """Vectors by `vector_of`, and a list of what was asked. Stands in for the embedder's worker."""

    def __init__(self, fingerprint: str = "f1", dimension: int = DIMENSION) -> None:
        self.calls: list[list[str]] = []
        self._identity = ModelIdentity("test-model", fingerprint, dimension, 64)

    @property
    def texts(self) -> list[str]:
        """All texts embedded so far."""
        return [text for call in self.calls for text in call]

    async def model(self, deadline: Deadline) -> ModelIdentity:
        return self._identity

    async def next_model(self, deadline: Deadline) -> ModelIdentity:
        return await self.model(deadline)

    async def require(self, fingerprint: str, deadline: Deadline) -> None:
        if (held := await self.model(deadline)).fingerprint != fingerprint:
            raise mismatch(fingerprint, [held])

    async def embed(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType,
        lane: Lane,
        fingerprint: str,
        deadline: Deadline,
        truncate: bool = True,
    ) -> Embeddings:
        deadline.share_s()
        assert (input_type, lane) == ("passage", "bulk")
        self.calls.append(list(texts))
        cut = frozenset(at for at, text in enumerate(texts) if "too-long" in text)
        return Embeddings(np.stack([vector_of(text) for text in texts]), cut, fingerprint)
