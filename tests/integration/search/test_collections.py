"""Collections on both adapters: made, listed, rebuilt beside the live one, deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.gateways import NEW, Copies
from support.store import DIMENSION, MODEL, a_plan, put, soon, vector_of, version

from gateway.reindexing import Reindexer
from gateway.search.filters import parse_filter
from gateway.search.points import Points
from gateway.search.search import Search
from gateway.search.types import Chunking, CollectionSummary, Hit, Stamp, Target
from gateway.search.versions import NewVersion
from runtime.errors import Reason, ServiceError

Store = tuple[Points, str]


async def nearest(
    search: Search, collection: str, text: str, stamp: Stamp | None = None
) -> list[Hit]:
    return await search.nearest(
        collection,
        text=text,
        vector=vector_of(text),
        mode="hybrid",
        filter=None,
        limit=5,
        deadline=soon(),
        stamp=stamp,
    )


async def test_a_collection_is_made_by_its_first_write_and_deleted(
    search: Search, store: Store
) -> None:
    _, default = store
    name = f"{default}-2"
    chunking = Chunking(256, 32)
    with pytest.raises(ServiceError) as caught:
        await search.stamp(name, soon())
    assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
    stamp = await search.ensure(name, MODEL, chunking, soon())
    assert (stamp.model, stamp.chunking) == (MODEL, chunking)
    assert await search.ensure(name, MODEL, None, soon()) == stamp
    with pytest.raises(ServiceError) as caught:
        await search.ensure(name, NEW, None, soon())
    assert caught.value.reason is Reason.MODEL_MISMATCH
    await put(search, name, version("a", "one", "two"))
    own = [one for one in await search.collections(soon()) if one.name in (default, name)]
    assert own == [
        CollectionSummary(default, None, DIMENSION, 512, 50, 0, 0),
        CollectionSummary(name, MODEL, DIMENSION, 256, 32, 1, 2),
    ]
    await search.delete_collection(name, soon())
    with pytest.raises(ServiceError) as caught:
        await nearest(search, name, "one")
    assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
    with pytest.raises(ServiceError) as caught:
        await search.delete_collection(name, soon())
    assert caught.value.reason is Reason.COLLECTION_NOT_FOUND


async def test_the_default_collection_comes_back_empty(search: Search, store: Store) -> None:
    points, default = store
    await put(search, default, version("a", "one"))
    await search.delete_collection(default, soon())
    assert (await search.stamp(default, soon())).model is None
    assert await search.get_document(default, "a", soon()) is None
    assert (await points.generations(default, soon())).others == ()
    await search.ensure(default, NEW, None, soon())

    async def prepare(_: Target) -> NewVersion:
        return version("b", "one")

    await search.put_document(default, "b", prepare, soon())
    assert [hit.document_id for hit in await nearest(search, default, "one")] == ["b"]


async def test_there_are_so_many_collections_and_no_more(store: Store) -> None:
    points, default = store
    search = Search(points, replace(a_plan(default), most_collections=1))
    await search.start()
    with pytest.raises(ServiceError) as caught:
        await search.ensure(f"{default}-2", MODEL, None, soon())
    assert caught.value.metadata["field"] == "collection"
    assert "MAX_COLLECTIONS" in caught.value.message
    await search._upkeep.aclose()


async def test_rebuilt_it_answers_from_the_new_generation_and_from_the_old(
    search: Search, store: Store
) -> None:
    points, collection = store
    for name in ("a", "b", "c"):
        await put(search, collection, version(name, f"text of {name}"))
    await search.delete_document(collection, "c", soon())
    before = await search.stamp(collection, soon())
    asked = Chunking(800, 80)
    done: list[tuple[int, int]] = []
    reindexer = Reindexer(search, Copies())
    await reindexer.run(collection, asked, "job", lambda *both: done.append(both))
    after = await search.stamp(collection, soon())
    assert (after.generation, after.model, after.chunking) == (2, NEW, asked)
    assert after.revision != before.revision
    assert done[-1] == (2, 2)
    found = await search.get_document(collection, "a", soon())
    assert found is not None
    assert found.text.startswith("text of a")
    assert len(found.chunks) == 2
    assert await search.get_document(collection, "c", soon()) is None
    hits = await nearest(search, collection, "text of a")
    assert {hit.document_id for hit in hits} == {"a", "b"}
    # A question whose vector was made for the old one.
    assert next(hit.text for hit in await nearest(search, collection, "text of a", before)) == (
        "text of a"
    )
    # It is gone in the middle of one: the live one answers.
    await points.drop_generation(collection, 1, soon())
    assert await nearest(search, collection, "text of a", before) == hits


async def test_documents_are_deleted_by_what_they_have_in_common(
    search: Search, store: Store
) -> None:
    _, collection = store
    for number in range(40):
        team = "red" if number % 2 else "blue"
        await put(search, collection, version(f"d{number}", "one", "two", team=team))
    red = parse_filter({"team": "red"})
    assert await search.delete_documents(collection, red, soon()) == (20, 40)
    assert await search.delete_documents(collection, red, soon()) == (0, 0)
    page = await search.list_documents(
        collection, limit=100, cursor=None, filter=None, deadline=soon()
    )
    assert len(page.documents) == 20
