"""What a Qdrant server may already have when a collection is made."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
from qdrant_client import AsyncQdrantClient, models
from support.store import COLLECTION, CONFIG, a_stamp, soon

from gateway.search import ids, wire
from gateway.search.points import Generations, at
from gateway.search.server import ServerPoints
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

FIRST = at(COLLECTION, 1)
A_RECORD = wire.Point(ids.record_id("a"), {"kind": "record", "seq": 1})


@pytest.fixture
async def client() -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(":memory:")
    yield client
    await client.close()


@pytest.fixture
def points(client: AsyncQdrantClient) -> ServerPoints:
    return ServerPoints(client)


async def dimension(client: AsyncQdrantClient, generation: str) -> int:
    vectors = (await client.get_collection(generation)).config.params.vectors
    assert isinstance(vectors, dict)
    return vectors[wire.DENSE].size


async def write(points: ServerPoints, address: str, *more: wire.Point) -> None:
    await points.swap(address, a_stamp(), None, soon())
    if more:
        await points.upsert(address, more, soon())


async def lose_the_alias(client: AsyncQdrantClient) -> None:
    lost = models.DeleteAlias(alias_name=COLLECTION)
    await client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=lost)])


async def test_a_collection_that_was_begun_is_finished(
    client: AsyncQdrantClient, points: ServerPoints
) -> None:
    """A gateway was killed between the first generation and its alias."""
    await points._make(FIRST, CONFIG, soon())
    assert await points.collections(soon()) == []
    await points.create(COLLECTION, CONFIG, soon())
    assert await points.generations(COLLECTION, soon()) == Generations(1, ())


async def test_what_was_begun_with_another_dimension_is_made_anew(
    client: AsyncQdrantClient, points: ServerPoints
) -> None:
    await points._make(FIRST, msgspec.structs.replace(CONFIG, dimension=7), soon())
    await points._make(at(COLLECTION, 4), CONFIG, soon())
    await points.create(COLLECTION, CONFIG, soon())
    assert await dimension(client, FIRST) == CONFIG.dimension
    assert await points.generations(COLLECTION, soon()) == Generations(1, ())


async def test_generations_with_points_but_no_alias_are_not_touched(
    client: AsyncQdrantClient, points: ServerPoints
) -> None:
    await points.create(COLLECTION, CONFIG, soon())
    await write(points, COLLECTION, A_RECORD)
    await lose_the_alias(client)
    with pytest.raises(ServiceError, match="'documents@1', but no alias 'documents'") as caught:
        await points.create(COLLECTION, CONFIG, soon())
    assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
    assert await points.count(FIRST, wire.Selection(), soon()) == 2


async def test_a_generation_that_has_its_stamp_alone_is_no_reason_to_refuse_the_name(
    client: AsyncQdrantClient, points: ServerPoints
) -> None:
    await points.create(COLLECTION, CONFIG, soon())
    await points.create_generation(COLLECTION, 2, CONFIG, soon())
    await write(points, at(COLLECTION, 2))
    await lose_the_alias(client)
    await points.create(COLLECTION, CONFIG, soon())
    assert await points.generations(COLLECTION, soon()) == Generations(1, ())


async def test_a_generation_made_while_the_collection_is_dropped_goes_with_it(
    client: AsyncQdrantClient, points: ServerPoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, generations = ServerPoints(client), points.generations
    await points.create(COLLECTION, CONFIG, soon())

    async def and_then_a_rebuild(collection: str, deadline: Deadline) -> Generations:
        found = await generations(collection, deadline)
        await other.create_generation(collection, 2, CONFIG, deadline)
        await write(other, at(collection, 2), A_RECORD)
        return found

    monkeypatch.setattr(points, "generations", and_then_a_rebuild)
    await points.drop(COLLECTION, soon())
    assert (await client.get_collections()).collections == []
    await points.create(COLLECTION, CONFIG, soon())


async def test_a_generation_of_a_collection_dropped_meanwhile_is_not_left(
    client: AsyncQdrantClient, points: ServerPoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, make = ServerPoints(client), points._make
    await points.create(COLLECTION, CONFIG, soon())

    async def after_a_drop(generation: str, config: wire.Config, deadline: Deadline) -> None:
        await other.drop(COLLECTION, deadline)
        await make(generation, config, deadline)

    monkeypatch.setattr(points, "_make", after_a_drop)
    with pytest.raises(ServiceError) as caught:
        await points.create_generation(COLLECTION, 2, CONFIG, soon())
    assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
    assert (await client.get_collections()).collections == []


async def test_a_collection_that_came_back_while_it_was_dropped_stays(
    client: AsyncQdrantClient, points: ServerPoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, numbers = ServerPoints(client), points._numbers
    await points.create(COLLECTION, CONFIG, soon())
    found = await points.generations(COLLECTION, soon())

    async def found_before(collection: str, deadline: Deadline) -> Generations:
        return found

    async def after_a_rebuild(collection: str, deadline: Deadline) -> set[int]:
        await other.create(collection, CONFIG, deadline)
        await other.create_generation(collection, 2, CONFIG, deadline)
        return await numbers(collection, deadline)

    monkeypatch.setattr(points, "generations", found_before)
    monkeypatch.setattr(points, "_numbers", after_a_rebuild)
    await points.drop(COLLECTION, soon())
    assert await other.generations(COLLECTION, soon()) == Generations(1, (2,))


async def test_an_alias_of_another_programs_collection_is_not_taken_over(
    client: AsyncQdrantClient, points: ServerPoints
) -> None:
    await points._make("theirs", CONFIG, soon())
    alias = models.CreateAlias(collection_name="theirs", alias_name=COLLECTION)
    await client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    with pytest.raises(ServiceError, match="an alias 'documents' of a collection that is not"):
        await points.create(COLLECTION, CONFIG, soon())
    assert await points.collections(soon()) == []
    with pytest.raises(ServiceError) as caught:
        await points.drop(COLLECTION, soon())
    assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
    assert await client.collection_exists("theirs")


async def test_collections_of_similar_names_are_told_apart(
    client: AsyncQdrantClient, points: ServerPoints
) -> None:
    for name in ("a", "a-b", "b"):
        await points.create(name, CONFIG, soon())
        await points.create_generation(name, 12, CONFIG, soon())
    others = ("a@x", "a@", "a@01", "x@a@3")
    for other in others:
        await points._make(other, CONFIG, soon())
    assert await points.collections(soon()) == ["a", "a-b", "b"]
    assert await points.generations("a", soon()) == Generations(1, (12,))
    await points.drop("a", soon())
    assert await points.generations("a-b", soon()) == Generations(1, (12,))
    for other in others:
        assert await client.collection_exists(other)


async def test_a_switch_to_what_is_not_there_leaves_the_alias(points: ServerPoints) -> None:
    await points.create(COLLECTION, CONFIG, soon())
    with pytest.raises(ServiceError) as caught:
        await points.switch(COLLECTION, 2, soon())
    assert caught.value.metadata == {"collection": at(COLLECTION, 2)}
    assert await points.generations(COLLECTION, soon()) == Generations(1, ())


async def test_another_gateways_parameters_are_noticed(
    client: AsyncQdrantClient, points: ServerPoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation is removed, and one of the same number made with another language."""
    monkeypatch.setattr("gateway.search.server.ENCODER_AGE_S", 0.0)
    other = ServerPoints(client)
    await points.create(COLLECTION, CONFIG, soon())
    await points.swap(COLLECTION, a_stamp(), None, soon())
    english = await points._encoder(FIRST, soon())
    await other.drop(COLLECTION, soon())
    await other.create(COLLECTION, CONFIG, soon())
    stamp = a_stamp()
    stamp.payload["bm25"]["language"] = "german"
    await other.swap(COLLECTION, stamp, None, soon())
    german = await points._encoder(FIRST, soon())
    text = "die Häuser und der Baum"
    assert german.passage(text) != english.passage(text)
    assert german.passage(text) == (await other._encoder(FIRST, soon())).passage(text)
