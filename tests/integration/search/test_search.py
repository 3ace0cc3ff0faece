"""Documents on both adapters: put, found, listed, replaced, deleted, swept."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.store import DIMENSION, a_plan, count, put, soon, vector_of, version

from gateway.search import ids, wire
from gateway.search.filters import Filter, parse_filter
from gateway.search.points import Points
from gateway.search.search import Search
from gateway.search.sweep import sweep
from gateway.search.types import Chunking, Mode, Model
from gateway.search.versions import NewVersion
from runtime.errors import Reason, ServiceError

Store = tuple[Points, str]
EVERYTHING = wire.Selection()


async def ids_found(
    search: Search,
    collection: str,
    text: str,
    *,
    mode: Mode = "hybrid",
    where: Filter | None = None,
    limit: int = 10,
) -> list[str]:
    hits = await search.nearest(
        collection,
        text=text,
        vector=vector_of(text),
        mode=mode,
        filter=where,
        limit=limit,
        deadline=soon(),
    )
    return [hit.chunk_id for hit in hits]


async def kinds(points: Points, collection: str) -> dict[str, int]:
    return {
        kind: await count(points, collection, wire.Match("kind", kind))
        for kind in ("record", "tombstone", "source", "chunk")
    }


async def test_the_default_collection_is_there_and_empty(search: Search, store: Store) -> None:
    _, collection = store
    stamp = await search.stamp(collection, soon())
    assert stamp.model is None
    assert (stamp.dimension, stamp.chunking) == (DIMENSION, Chunking(512, 50))
    assert await ids_found(search, collection, "anything") == []
    page = await search.list_documents(
        collection, limit=5, cursor=None, filter=None, deadline=soon()
    )
    assert (page.documents, page.next_cursor) == ((), None)
    await search.ping()


async def test_a_document_comes_back_as_it_was_put(search: Search, store: Store) -> None:
    _, collection = store
    new = version("dir/a b#1", "first über 語", "second", team="red", nested={"n": [1, 2.5, None]})
    assert await put(search, collection, new) == "added"
    document = await search.get_document(collection, "dir/a b#1", soon())
    assert document is not None
    assert document.text == new.text
    assert [(chunk.ordinal, chunk.text) for chunk in document.chunks] == [
        (0, "first über 語"),
        (1, "second"),
    ]
    assert document.metadata == new.metadata
    assert document.content_sha256 == new.content_sha256
    assert document.indexed_at.endswith("Z")
    [hit, *_] = await search.nearest(
        collection,
        text="second",
        vector=vector_of("second"),
        mode="hybrid",
        filter=None,
        limit=1,
        deadline=soon(),
    )
    assert (hit.chunk_id, hit.document_id, hit.ordinal) == ("dir/a b#1#1", "dir/a b#1", 1)
    assert hit.metadata == new.metadata
    assert hit.score == pytest.approx(1.0)


async def test_a_document_without_chunks_is_kept_too(search: Search, store: Store) -> None:
    _, collection = store
    await put(search, collection, version("blank"))
    document = await search.get_document(collection, "blank", soon())
    assert document is not None
    assert document.chunks == ()


async def test_replacing_leaves_one_version_and_nothing_else(search: Search, store: Store) -> None:
    points, collection = store
    await put(search, collection, version("a", "one", "two", "three"))
    assert await put(search, collection, version("a", "four")) == "replaced"
    assert await ids_found(search, collection, "one two three", mode="sparse") == []
    assert await ids_found(search, collection, "four") == ["a#0"]
    assert await kinds(points, collection) == {
        "record": 1, "tombstone": 0, "source": 1, "chunk": 1
    }  # fmt: skip


async def test_a_deleted_document_is_gone_and_can_come_back(search: Search, store: Store) -> None:
    points, collection = store
    await put(search, collection, version("a", "one", "two"))
    assert await search.delete_document(collection, "a", soon()) == 2
    assert await search.get_document(collection, "a", soon()) is None
    assert await ids_found(search, collection, "one") == []
    assert await search.delete_document(collection, "a", soon()) is None
    assert await search.delete_document(collection, "never", soon()) is None
    assert await kinds(points, collection) == {
        "record": 0, "tombstone": 1, "source": 0, "chunk": 0
    }  # fmt: skip
    assert await put(search, collection, version("a", "three")) == "added"
    assert await ids_found(search, collection, "three") == ["a#0"]


async def test_writers_of_one_document_end_in_one_version(search: Search, store: Store) -> None:
    points, collection = store
    texts = [[f"writer {writer} chunk {at}" for at in range(3)] for writer in range(6)]
    await asyncio.gather(*(put(search, collection, version("a", *chunks)) for chunks in texts))
    document = await search.get_document(collection, "a", soon())
    assert document is not None
    assert [chunk.text for chunk in document.chunks] in texts
    assert await kinds(points, collection) == {
        "record": 1, "tombstone": 0, "source": 1, "chunk": 3
    }  # fmt: skip


async def test_a_write_goes_on_when_its_caller_leaves(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, collection = store
    begun, upsert = asyncio.Event(), points.upsert

    async def noticed(*arguments: Any) -> None:
        begun.set()
        await upsert(*arguments)

    monkeypatch.setattr(points, "upsert", noticed)
    new = version("a", *(f"chunk {at}" for at in range(100)))
    writing = asyncio.create_task(put(search, collection, new))
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await search._records.aclose()
    document = await search.get_document(collection, "a", soon())
    assert document is not None
    assert len(document.chunks) == 100


async def test_revision_changes_with_every_write_and_only_then(
    search: Search, store: Store
) -> None:
    _, collection = store
    seen = [(await search.stamp(collection, soon())).revision]
    await put(search, collection, version("a", "one"))
    seen.append((await search._stamps._fetch(collection, soon()))[0].revision)
    await ids_found(search, collection, "one")
    assert (await search._stamps._fetch(collection, soon()))[0].revision == seen[-1]
    await search.delete_document(collection, "a", soon())
    seen.append((await search._stamps._fetch(collection, soon()))[0].revision)
    assert len(set(seen)) == 3


async def test_filters_find_and_list_what_equals(search: Search, store: Store) -> None:
    _, collection = store
    metadata: dict[str, dict[str, Any]] = {
        "red": {"team": "red", "year": 2024, "price": 1.5, "draft": True, "tags": ["x", "y"]},
        "blue": {"team": "blue", "year": 2025, "price": 2.0, "draft": False, "tags": ["y"]},
        "deep": {"a": {"b-c": "d"}, "ключ": "да", "big": 2**60 + 1},
    }
    for name, values in metadata.items():
        await put(search, collection, version(name, f"same text {name}", **values))
    for raw, expected in (
        ({"team": "red"}, {"red"}),
        ({"year": 2025}, {"blue"}),
        ({"year": 2025.0}, {"blue"}),
        ({"price": 1.5}, {"red"}),
        ({"price": 2}, {"blue"}),
        ({"draft": True}, {"red"}),
        ({"draft": False}, {"blue"}),
        ({"tags": "y"}, {"red", "blue"}),
        ({"tags": "y", "team": "red"}, {"red"}),
        ({"a.b-c": "d"}, {"deep"}),
        ({"ключ": "да"}, {"deep"}),
        ({"big": 2**60 + 1}, {"deep"}),
        ({"team": "green"}, set()),
        ({"year": "2025"}, set()),
        ({"draft": 1}, set()),
    ):
        where = parse_filter(raw)
        for mode in ("hybrid", "dense", "sparse"):
            found = await ids_found(search, collection, "same text", mode=mode, where=where)  # type: ignore[arg-type]
            assert {chunk_id.split("#")[0] for chunk_id in found} == expected, (raw, mode)
        page = await search.list_documents(
            collection, limit=5, cursor=None, filter=where, deadline=soon()
        )
        assert {document.id for document in page.documents} == expected, raw


async def test_pages_hold_every_document_once(search: Search, store: Store) -> None:
    _, collection = store
    names = [f"doc {at}" for at in range(7)]
    for name in names:
        await put(search, collection, version(name, name, name=name))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await search.list_documents(
            collection, limit=3, cursor=cursor, filter=None, deadline=soon()
        )
        assert len(page.documents) <= 3
        seen += [document.id for document in page.documents]
        assert all(document.metadata == {"name": document.id} for document in page.documents)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == names


async def test_a_cursor_that_no_page_gave_is_refused(search: Search, store: Store) -> None:
    _, collection = store
    with pytest.raises(ServiceError) as caught:
        await search.list_documents(collection, limit=3, cursor="zzz", filter=None, deadline=soon())
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.metadata == {"field": "cursor"}


async def test_the_first_model_is_the_only_one(search: Search, store: Store) -> None:
    _, collection = store
    mine = Model("mine", "f1", DIMENSION)
    stamp = await search.claim(collection, mine, soon())
    assert stamp.model == mine
    assert (await search.claim(collection, replace(mine, name="alias"), soon())).model == mine
    for other in (Model("other", "f2", DIMENSION), Model("wide", "f3", DIMENSION + 1)):
        with pytest.raises(ServiceError) as caught:
            await search.claim(collection, other, soon())
        assert caught.value.reason is Reason.MODEL_MISMATCH
    with pytest.raises(ServiceError) as caught:
        await search.nearest(
            collection,
            text="x",
            vector=vector_of("x"),
            mode="dense",
            filter=None,
            limit=1,
            deadline=soon(),
            fingerprint="f2",
        )
    assert caught.value.reason is Reason.MODEL_MISMATCH
    with pytest.raises(ServiceError) as caught:
        await search.nearest(
            collection,
            text="x",
            vector=np.zeros(3, np.float32),
            mode="hybrid",
            filter=None,
            limit=1,
            deadline=soon(),
        )
    assert caught.value.reason is Reason.MODEL_MISMATCH


async def test_two_gateways_claim_one_model(search: Search, store: Store) -> None:
    points, collection = store
    other = Search(points, a_plan(collection))
    outcomes = await asyncio.gather(
        search.claim(collection, Model("one", "f1", DIMENSION), soon()),
        other.claim(collection, Model("two", "f2", DIMENSION), soon()),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    assert [error.reason for error in refused] == [Reason.MODEL_MISMATCH]


async def test_stale_chunks_do_not_take_the_place_of_current_ones(
    search: Search, store: Store
) -> None:
    points, collection = store
    await put(search, collection, version("a", "same words"))
    left = version("a", *(f"same words {at}" for at in range(3)))
    await points.upsert(collection, orphans(left, "crashed"), soon())
    assert await ids_found(search, collection, "same words", limit=1, mode="sparse") == ["a#0"]
    assert await ids_found(search, collection, "same words 1", limit=2) == ["a#0"]


async def test_the_sweep_removes_what_no_record_names(search: Search, store: Store) -> None:
    points, collection = store
    await put(search, collection, version("a", "one", "two"))
    await put(search, collection, version("b", "three"))
    await search.delete_document(collection, "b", soon())
    before = await kinds(points, collection)
    await points.upsert(collection, orphans(version("a", "one", "old"), "crashed"), soon())
    await points.upsert(collection, orphans(version("never", "x"), "crashed"), soon())
    assert await sweep(points, collection) == 0  # too young: its record may still come
    assert await sweep(points, collection, orphan_age_s=-1) == 3
    assert await kinds(points, collection) == before
    aged = {"written_at": 1}
    await points.set_payload(collection, ids.record_id("b"), aged, soon())
    assert await sweep(points, collection) == 1
    assert (await kinds(points, collection))["tombstone"] == 0
    document = await search.get_document(collection, "a", soon())
    assert document is not None
    assert len(document.chunks) == 2


async def test_another_schema_version_is_refused(search: Search, store: Store) -> None:
    points, collection = store
    await points.set_payload(collection, ids.STAMP_ID, {"schema_version": 99}, soon())
    with pytest.raises(ServiceError, match="schema version 99"):
        await Search(points, a_plan(collection))._prepare(soon())


def orphans(new: NewVersion, crashed: str) -> list[wire.Point]:
    """Chunks as a writer leaves them that dies before it swaps the record."""
    return [
        wire.Point(
            ids.chunk_id(new.document_id, crashed, ordinal),
            {
                "kind": "chunk",
                "document_id": new.document_id,
                "version": crashed,
                "written_at": int(time.time()),
                "ordinal": ordinal,
                "text": chunk.text,
                "sha256": chunk.sha256,
                "truncated": False,
                "metadata": {},
            },
            chunk.vector,
            chunk.text,
        )
        for ordinal, chunk in enumerate(new.chunks)
    ]
