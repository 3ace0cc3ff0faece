"""What a Qdrant server may already have when a collection is made."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
from qdrant_client import AsyncQdrantClient, models
from support.store import COLLECTION, CONFIG, a_stamp, soon

from gateway.search import wire
from gateway.search.points import Generations, at
from gateway.search.server import ServerPoints
from runtime.errors import Reason, ServiceError

FIRST = at(COLLECTION, 1)


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
    await points.swap(COLLECTION, a_stamp(), None, soon())
    lost = models.DeleteAlias(alias_name=COLLECTION)
    await client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=lost)])
    with pytest.raises(ServiceError, match="'documents@1', but no alias 'documents'") as caught:
        await points.create(COLLECTION, CONFIG, soon())
    assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
    assert await points.count(FIRST, wire.Selection(), soon()) == 1


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
