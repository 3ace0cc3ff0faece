"""Documents through the indexer into the real store: what is embedded, written and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from support.store import DIMENSION, HashEmbedder, soon, vector_of

from gateway.clients import Embeddings
from gateway.indexing import DocumentResult, Indexer, NewDocument
from gateway.search.points import Points
from gateway.search.search import Search
from gateway.search.types import Chunking
from runtime.errors import Reason, ServiceError

Store = tuple[Points, str]
SMALL = Chunking(64, 0)


def paragraphs(*words: str) -> str:
    """One chunk of at most 64 characters for each word."""
    return "\n\n".join(f"{word} " + "x" * (60 - len(word)) for word in words)


async def index(
    indexer: Indexer, collection: str, *documents: NewDocument, chunking: Chunking = SMALL
) -> list[DocumentResult]:
    return (await indexer.index(collection, documents, chunking, soon())).results


async def test_a_document_is_cut_embedded_and_found(search: Search, store: Store) -> None:
    _, collection = store
    embedder = HashEmbedder()
    indexer = Indexer(search, embedder, batch_size=32)
    [result] = await index(
        indexer, collection, NewDocument("a", "  Ownership\n is   unique.  ", {"n": 1})
    )
    assert result == DocumentResult("a", "added", 1, 0)
    assert embedder.texts == ["Ownership is unique."]
    hits = await search.nearest(
        collection,
        text="ownership",
        vector=vector_of("Ownership is unique."),
        mode="hybrid",
        filter=None,
        limit=3,
        deadline=soon(),
    )
    assert [(hit.text, hit.metadata) for hit in hits] == [("Ownership\n is   unique.", {"n": 1})]
    stamp = await search.stamp(collection, soon())
    assert stamp.model is not None
    assert stamp.model.fingerprint == "f1"


async def test_the_same_again_writes_and_embeds_nothing(search: Search, store: Store) -> None:
    _, collection = store
    embedder = HashEmbedder()
    indexer = Indexer(search, embedder, batch_size=32)
    document = NewDocument("a", paragraphs("one", "two"), {"team": "red", "n": [1, 2.0, None]})
    await index(indexer, collection, document)
    calls, stamp = len(embedder.calls), await search.stamp(collection, soon())
    assert await index(indexer, collection, document) == [DocumentResult("a", "unchanged", 2, 0)]
    assert len(embedder.calls) == calls
    assert await search.stamp(collection, soon()) == stamp


async def test_changed_metadata_alone_embeds_nothing(search: Search, store: Store) -> None:
    _, collection = store
    embedder = HashEmbedder()
    indexer = Indexer(search, embedder, batch_size=32)
    text = paragraphs("one", "two")
    await index(indexer, collection, NewDocument("a", text, {"team": "red"}))
    calls = len(embedder.calls)
    [result] = await index(indexer, collection, NewDocument("a", text, {"team": "blue"}))
    assert (result.status, len(embedder.calls)) == ("replaced", calls)
    hits = await search.nearest(
        collection,
        text="two",
        vector=vector_of(paragraphs("two")),
        mode="hybrid",
        filter=None,
        limit=1,
        deadline=soon(),
    )
    assert hits[0].metadata == {"team": "blue"}
    assert hits[0].dense == pytest.approx(1.0, abs=1e-5)


async def test_metadata_of_another_type_is_a_change(search: Search, store: Store) -> None:
    _, collection = store
    indexer = Indexer(search, HashEmbedder(), batch_size=32)
    statuses = []
    for value in (1, True, 1.0, 1.0):
        metadata = {"other": 0, "flag": [value]}
        [result] = await index(indexer, collection, NewDocument("a", "text", metadata))
        statuses.append(result.status)
    reordered = NewDocument("a", "text", {"flag": [1.0], "other": 0})
    [result] = await index(indexer, collection, reordered)
    assert [*statuses, result.status] == [
        "added", "replaced", "replaced", "unchanged", "unchanged"
    ]  # fmt: skip


async def test_a_changed_document_embeds_only_its_new_chunks(search: Search, store: Store) -> None:
    _, collection = store
    embedder = HashEmbedder()
    indexer = Indexer(search, embedder, batch_size=32)
    await index(indexer, collection, NewDocument("a", paragraphs("one", "two", "three"), {}))
    embedder.calls.clear()
    [result] = await index(
        indexer, collection, NewDocument("a", paragraphs("zero", "one", "three"), {})
    )
    assert result == DocumentResult("a", "replaced", 3, 0)
    assert embedder.texts == [paragraphs("zero")]


async def test_other_chunking_replaces(search: Search, store: Store) -> None:
    _, collection = store
    indexer = Indexer(search, HashEmbedder(), batch_size=32)
    document = NewDocument("a", paragraphs("one", "two"), {})
    await index(indexer, collection, document)
    [result] = await index(indexer, collection, document, chunking=Chunking(512, 50))
    assert result == DocumentResult("a", "replaced", 1, 0)


async def test_the_collections_chunking_is_the_default(search: Search, store: Store) -> None:
    _, collection = store
    indexer = Indexer(search, HashEmbedder(), batch_size=32)
    outcome = await indexer.index(
        collection, [NewDocument("a", paragraphs("one", "two"), {})], None, soon()
    )
    assert outcome.results[0].chunks == 1


async def test_cut_chunks_are_counted_and_remembered(search: Search, store: Store) -> None:
    _, collection = store
    indexer = Indexer(search, HashEmbedder(), batch_size=32)
    text = paragraphs("too-long", "short")
    first = await index(indexer, collection, NewDocument("a", text, {}))
    again = await index(indexer, collection, NewDocument("a", text, {}))
    moved = await index(indexer, collection, NewDocument("a", text, {"n": 1}))
    assert [r.truncated_chunks for r in (*first, *again, *moved)] == [1, 1, 1]


async def test_calls_are_filled_across_documents(search: Search, store: Store) -> None:
    _, collection = store
    embedder = HashEmbedder()
    indexer = Indexer(search, embedder, batch_size=8)
    documents = [NewDocument(f"d{at}", paragraphs(f"word{at}"), {}) for at in range(64)]
    results = await index(indexer, collection, *documents)
    assert [result.id for result in results] == [document.id for document in documents]
    assert sorted(embedder.texts) == sorted(document.text for document in documents)
    assert max(len(call) for call in embedder.calls) <= 8
    assert len(embedder.calls) < 64 / 2


async def test_texts_of_whitespace_keep_a_record_and_no_chunk(search: Search, store: Store) -> None:
    _, collection = store
    indexer = Indexer(search, HashEmbedder(), batch_size=8)
    document = NewDocument("a", " \n\t  ", {})
    assert await index(indexer, collection, document) == [DocumentResult("a", "added", 0, 0)]
    assert await index(indexer, collection, document) == [DocumentResult("a", "unchanged", 0, 0)]


async def test_one_bad_document_indexes_nothing(search: Search, store: Store) -> None:
    _, collection = store
    embedder = HashEmbedder()
    indexer = Indexer(search, embedder, batch_size=8)
    documents = NewDocument("a", "fine", {}), NewDocument("b", "x" * 70_000, {})
    with pytest.raises(ServiceError) as caught:
        await index(indexer, collection, *documents, chunking=Chunking(64, 63))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.metadata == {"field": "documents[1].text"}
    assert embedder.calls == []
    assert await search.get_document(collection, "a", soon()) is None


async def test_another_model_is_refused_before_anything_is_written(
    search: Search, store: Store
) -> None:
    _, collection = store
    await index(Indexer(search, HashEmbedder(), batch_size=8), collection, a_document("a"))
    for other in (HashEmbedder("f2"), HashEmbedder("f3", DIMENSION * 2)):
        with pytest.raises(ServiceError) as caught:
            await index(Indexer(search, other, batch_size=8), collection, a_document("b"))
        assert caught.value.reason is Reason.MODEL_MISMATCH
        assert other.calls == []
    assert await search.get_document(collection, "b", soon()) is None


async def test_out_of_time_stops_between_documents_and_a_retry_goes_on(
    search: Search, store: Store
) -> None:
    _, collection = store
    documents = [a_document(f"d{at}") for at in range(3)]
    slow = FailsAt("d1", ServiceError(Reason.DEADLINE_EXCEEDED, "The time budget ran out."))
    with pytest.raises(ServiceError) as caught:
        await index(Indexer(search, slow, batch_size=1), collection, *documents)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    for document in documents:
        found = await search.get_document(collection, document.id, soon())
        assert found is None or found.text == document.text
    await search._records.aclose()  # what had begun is finished
    again = await index(Indexer(search, HashEmbedder(), batch_size=1), collection, *documents)
    statuses = {result.id: result.status for result in again}
    assert statuses["d1"] == "added"
    assert set(statuses.values()) <= {"added", "unchanged"}


async def test_what_nobody_foresaw_in_the_embedder_is_raised_at_once(
    search: Search, store: Store
) -> None:
    _, collection = store
    documents = [a_document(f"d{at}") for at in range(20)]
    broken = FailsAt("d", TypeError("nobody foresaw this"))
    async with asyncio.timeout(10):
        with pytest.raises(TypeError, match="nobody foresaw this"):
            await index(Indexer(search, broken, batch_size=1), collection, *documents)


async def test_too_few_vectors_are_raised_at_once(search: Search, store: Store) -> None:
    class Short(HashEmbedder):
        async def embed(self, texts: Sequence[str], **rest: Any) -> Embeddings:
            made = await super().embed(texts, **rest)
            return Embeddings(made.vectors[:-1], made.truncated, made.fingerprint)

    _, collection = store
    async with asyncio.timeout(10):
        with pytest.raises(IndexError):
            await index(Indexer(search, Short(), batch_size=8), collection, a_document("a"))


async def test_a_caller_that_leaves_stops_the_embedding(search: Search, store: Store) -> None:
    _, collection = store
    held = Held()
    indexing = asyncio.create_task(
        index(Indexer(search, held, batch_size=1), collection, a_document("a"))
    )
    async with asyncio.timeout(10):
        await held.asked.wait()
    indexing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await indexing
    assert held.cancelled
    assert await search.get_document(collection, "a", soon()) is None


async def test_a_document_larger_than_the_window_goes_through_alone(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.indexing.WINDOW_CHUNKS", 4)
    _, collection = store
    indexer = Indexer(search, HashEmbedder(), batch_size=8)
    large = NewDocument("large", paragraphs(*(f"w{at}" for at in range(20))), {})
    results = await index(indexer, collection, a_document("a"), large, a_document("b"))
    assert [result.chunks for result in results] == [1, 20, 1]
    assert indexer._window._used == 0


def a_document(name: str) -> NewDocument:
    return NewDocument(name, f"text of {name}", {})


class FailsAt(HashEmbedder):
    """Fails on the text that holds a word."""

    def __init__(self, word: str, error: Exception) -> None:
        super().__init__()
        self._word = word
        self._error = error

    async def embed(self, texts: Sequence[str], **rest: Any) -> Embeddings:
        if any(self._word in text for text in texts):
            raise self._error
        return await super().embed(texts, **rest)


class Held(HashEmbedder):
    """Never answers; says when it was asked, and when it was left."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.cancelled = False

    async def embed(self, texts: Sequence[str], **rest: Any) -> Embeddings:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("never answers")


class Interrupted(HashEmbedder):
    """Something is done before the vectors of a text are given for the first time."""

    def __init__(self, text: str, act: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._text = text
        self._act = act
        self._waits = True

    async def embed(self, texts: Sequence[str], **how: Any) -> Embeddings:
        if self._waits and any(self._text in text for text in texts):
            self._waits = False
            await self._act()
        return await super().embed(texts, **how)


@pytest.mark.parametrize("which", ["default", "named"])
async def test_a_collection_deleted_in_between_is_not_made_anew(
    search: Search, store: Store, which: str
) -> None:
    _, default = store
    collection = default if which == "default" else f"{default}-named"
    plain = Indexer(search, HashEmbedder(), batch_size=8)
    first = await plain.index(collection, [a_document("a")], SMALL, soon())
    await search.delete_collection(collection, soon())
    for _ in range(2):
        with pytest.raises(ServiceError) as caught:
            await plain.index(collection, [a_document("b")], SMALL, soon(), born_at=first.born_at)
        assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
        # And when somebody else has made it anew.
        await plain.index(collection, [a_document("c")], SMALL, soon())


@pytest.mark.parametrize("which", ["default", "named"])
@pytest.mark.parametrize("made_anew", [False, True])
async def test_a_request_whose_collection_is_deleted_meanwhile_fails(
    search: Search, store: Store, which: str, made_anew: bool
) -> None:
    _, default = store
    collection = default if which == "default" else f"{default}-named"
    plain = Indexer(search, HashEmbedder(), batch_size=8)

    # Before, not with the other: the two may be embedded one after the other, in either order.
    await plain.index(collection, [a_document("a")], SMALL, soon())

    async def delete() -> None:
        await search.delete_collection(collection, soon())
        if made_anew:
            await plain.index(collection, [a_document("c")], SMALL, soon())

    indexer = Indexer(search, Interrupted("late", delete), batch_size=1)
    documents = [a_document("a"), NewDocument("b", "late", {})]
    with pytest.raises(ServiceError) as caught:
        await indexer.index(collection, documents, SMALL, soon())
    assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
