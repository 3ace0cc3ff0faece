"""A collection moved from one embedder's model to another's, over real gRPC and a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from rag.embedder.v1 import embedder_pb2
from support import workers
from support.embedder import vector_of
from support.store import embedded_search, soon
from support.workers import Script, channel_to

from gateway.clients import EMBEDDER_SERVICE, EmbedderClient
from gateway.embedders import Embedders
from gateway.indexing import Indexer, NewDocument
from gateway.preparing import Preparer
from gateway.reindexing import Reindexer
from gateway.search.search import Search
from gateway.search.types import Chunking
from runtime.errors import Reason, ServiceError

OLD, NEW = "a" * 64, "b" * 64
COLLECTION = "books"
SMALL = Chunking(64, 0)


def paragraphs(*words: str) -> str:
    """One chunk of at most 64 characters for each word."""
    return "\n\n".join(f"{word} " + "x" * (60 - len(word)) for word in words)


DOCUMENTS = [NewDocument(f"d{n}", paragraphs(f"one{n}", f"two{n}"), {"n": n}) for n in range(12)]


@dataclass
class Stage:
    """Two workers, the store, and a server that can be taken away."""

    old: Script
    new: Script
    old_server: AsyncExitStack
    search: Search
    clients: list[EmbedderClient]

    def indexer(self, *clients: EmbedderClient) -> Indexer:
        return Indexer(self.search, Embedders(*clients), batch_size=8)

    def reindexer(self, *clients: EmbedderClient) -> Reindexer:
        return Reindexer(self.search, Preparer(self.search, Embedders(*clients), batch_size=8))

    async def fingerprint(self) -> str:
        model = (await self.search.stamp(COLLECTION, soon())).model
        assert model is not None
        return model.fingerprint


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    old, new = Script(fingerprint=OLD), Script(fingerprint=NEW)
    async with (
        embedded_search(tmp_path) as search,
        AsyncExitStack() as rest,
        AsyncExitStack() as old_server,
    ):
        clients = []
        for server, script in ((old_server, old), (rest, new)):
            target = await server.enter_async_context(workers.embedder(script))
            channel = await rest.enter_async_context(channel_to(target, EMBEDDER_SERVICE))
            clients.append(EmbedderClient(channel))
        yield Stage(old, new, old_server, search, clients)


def embedded(script: Script) -> list[str]:
    """The texts that the worker was asked to embed, sorted."""
    calls = [one for one in script.requests if isinstance(one, embedder_pb2.EmbedTextsRequest)]
    assert all(call.lane == embedder_pb2.LANE_BULK for call in calls)
    return sorted(text for call in calls for text in call.texts)


def chunks(*documents: NewDocument) -> list[str]:
    return sorted(part for document in documents for part in document.text.split("\n\n"))


async def test_a_collection_is_moved_and_the_old_embedder_taken_away(stage: Stage) -> None:
    indexer = stage.indexer(*stage.clients)
    await indexer.index(COLLECTION, DOCUMENTS, SMALL, soon())
    assert await stage.fingerprint() == OLD
    assert (embedded(stage.old), embedded(stage.new)) == (chunks(*DOCUMENTS), [])

    seen: list[tuple[int, int]] = []
    reindexer = stage.reindexer(*stage.clients)
    await reindexer.check(COLLECTION, soon())
    await reindexer.run(COLLECTION, None, "job", lambda done, total: seen.append((done, total)))
    assert await stage.fingerprint() == NEW
    assert embedded(stage.new) == chunks(*DOCUMENTS)
    assert seen[-1] == (len(DOCUMENTS), len(DOCUMENTS))

    await stage.old_server.aclose()
    stage.new.requests.clear()
    changed = NewDocument("d0", paragraphs("zero", "two0"), {})
    outcome = await indexer.index(COLLECTION, [changed, *DOCUMENTS[1:]], None, soon())
    assert [one.status for one in outcome.results] == ["replaced"] + ["unchanged"] * 11
    # Neither the chunk that stayed, nor a document that did.
    assert embedded(stage.new) == [paragraphs("zero")]
    hits = await stage.search.nearest(
        COLLECTION,
        text="zero",
        vector=vector_of(paragraphs("zero")),
        mode="dense",
        filter=None,
        limit=1,
        deadline=soon(),
    )
    assert [hit.document_id for hit in hits] == ["d0"]


async def test_a_rebuild_with_the_same_model_and_chunking_embeds_nothing(stage: Stage) -> None:
    old, _ = stage.clients
    await stage.indexer(old).index(COLLECTION, DOCUMENTS, SMALL, soon())
    stage.old.requests.clear()
    await stage.reindexer(old).run(COLLECTION, None, "job", lambda done, total: None)
    assert embedded(stage.old) == []
    assert (await stage.search.stamp(COLLECTION, soon())).generation == 2


async def test_without_the_model_nothing_is_written_and_it_is_told_what_to_do(
    stage: Stage,
) -> None:
    old, new = stage.clients
    await stage.indexer(old).index(COLLECTION, DOCUMENTS[:1], SMALL, soon())
    with pytest.raises(ServiceError) as caught:
        await stage.indexer(new).index(COLLECTION, DOCUMENTS, None, soon())
    assert caught.value.reason is Reason.MODEL_MISMATCH
    assert "EMBEDDER_TARGET_NEXT" in caught.value.message
    assert "POST /reindex" in caught.value.message
    assert embedded(stage.new) == []
    assert await stage.search.get_document(COLLECTION, "d1", soon()) is None


async def test_a_new_collection_has_the_model_that_serves(stage: Stage) -> None:
    await stage.indexer(*stage.clients).index("fresh", DOCUMENTS[:1], None, soon())
    model = (await stage.search.stamp("fresh", soon())).model
    assert model is not None
    assert model.fingerprint == OLD
