"""What both adapters of `Points` must do alike with generations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.store import CONFIG, a_stamp, soon, vector_of

from gateway.search import ids, wire
from gateway.search.points import Generations, Points, at, split
from runtime.errors import Reason, ServiceError

Store = tuple[Points, str]
RECORD = ids.record_id("a")
SWITCHES = 30


def record(seq: int, version: str = "1") -> wire.Point:
    """The record of one document."""
    return wire.Point(
        RECORD, {"kind": "record", "document_id": "a", "version": version, "seq": seq}
    )


def chunk(text: str) -> wire.Point:
    """The chunk of that document's version 1."""
    payload = {
        "kind": "chunk",
        "document_id": "a",
        "version": "1",
        "ordinal": 0,
        "text": text,
        "metadata": {},
    }
    return wire.Point(ids.chunk_id("a", "1", 0), payload, wire.pack(vector_of(text).tolist()), text)


async def version_at(points: Points, address: str) -> str | None:
    """The version of the document's record in that generation; None if there is none."""
    found = await points.retrieve(address, [RECORD], soon())
    return found[0].payload["version"] if found else None


async def everything(points: Points, address: str) -> int:
    """How many points the generation has."""
    return await points.count(address, wire.Selection(), soon())


@pytest.fixture
async def two(store: Store) -> Store:
    """A collection with generations 1, live, and 2; the record of each names it."""
    points, collection = store
    await points.create(collection, CONFIG, soon())
    await points.create_generation(collection, 2, CONFIG, soon())
    for generation in (1, 2):
        address = at(collection, generation)
        await points.swap(address, a_stamp(), None, soon())
        await points.upsert(address, [record(1, str(generation))], soon())
    return store


async def test_a_new_collection_has_one_generation_which_is_live(store: Store) -> None:
    points, collection = store
    assert collection not in await points.collections(soon())
    await points.create(collection, CONFIG, soon())
    assert collection in await points.collections(soon())
    assert await points.generations(collection, soon()) == Generations(1, ())
    await points.swap(at(collection, 1), record(1), None, soon())
    assert await version_at(points, collection) == "1"


async def test_generations_are_apart_and_the_name_means_the_live_one(two: Store) -> None:
    points, collection = two
    assert await points.generations(collection, soon()) == Generations(1, (2,))
    await points.upsert(collection, [chunk("only in the live one")], soon())
    assert await everything(points, collection) == await everything(points, f"{collection}@1") == 3
    assert await everything(points, at(collection, 2)) == 2
    question = wire.Query(None, "live", wire.Selection(), 5, 50, 10)
    found = await points.query(at(collection, 1), question, soon())
    assert [passage.document_id for passage in found.passages] == ["a"]
    assert (await points.query(at(collection, 2), question, soon())).passages == []


async def test_a_switch_changes_what_the_name_means_and_nothing_else(two: Store) -> None:
    points, collection = two
    await points.switch(collection, 2, soon())
    assert await points.generations(collection, soon()) == Generations(2, (1,))
    assert await version_at(points, collection) == "2"
    assert await version_at(points, at(collection, 1)) == "1"
    assert await version_at(points, at(collection, 2)) == "2"
    await points.switch(collection, 2, soon())  # again changes nothing
    assert await points.generations(collection, soon()) == Generations(2, (1,))


async def test_readers_see_one_generation_or_the_other_while_it_is_switched(two: Store) -> None:
    points, collection = two
    done = asyncio.Event()
    seen: list[str | None] = []

    async def read() -> None:
        while not done.is_set():
            seen.append(await version_at(points, collection))
            await asyncio.sleep(0)  # the in-memory client never gives others a turn

    readers = [asyncio.create_task(read()) for _ in range(3)]
    for turn in range(SWITCHES):
        live = 2 - turn % 2
        await points.switch(collection, live, soon())
        assert await version_at(points, collection) == str(live)
        await asyncio.sleep(0)
    done.set()
    await asyncio.gather(*readers)
    assert set(seen) == {"1", "2"}


async def test_a_leftover_of_the_number_is_removed_first(two: Store) -> None:
    points, collection = two
    await points.create_generation(collection, 2, CONFIG, soon())
    assert await everything(points, at(collection, 2)) == 0
    assert await version_at(points, collection) == "1"


async def test_the_live_generation_is_neither_made_anew_nor_dropped(two: Store) -> None:
    points, collection = two
    for refused in (
        points.create_generation(collection, 1, CONFIG, soon()),
        points.drop_generation(collection, 1, soon()),
    ):
        with pytest.raises(ValueError, match="generation 1 is the live one"):
            await refused
    assert await version_at(points, collection) == "1"


async def test_a_dropped_generation_is_gone_and_dropping_it_again_is_fine(two: Store) -> None:
    points, collection = two
    await points.switch(collection, 2, soon())
    for _ in range(2):
        await points.drop_generation(collection, 1, soon())
        assert await points.generations(collection, soon()) == Generations(2, ())
    await points.drop_generation("nothere", 1, soon())
    assert await version_at(points, collection) == "2"
    await missing(at(collection, 1), lambda: version_at(points, at(collection, 1)))


async def test_calls_under_way_in_a_dropped_generation_say_that_it_is_gone(two: Store) -> None:
    points, collection = two
    address = at(collection, 2)
    many = [wire.Point(ids.record_id(f"d{n}"), {"kind": "record"}) for n in range(300)]
    await points.upsert(address, many, soon())
    started = asyncio.Event()

    async def read() -> None:
        while True:
            started.set()
            await points.scroll(address, wire.Selection(), 300, soon())
            await asyncio.sleep(0)

    readers = [asyncio.create_task(read()) for _ in range(5)]
    await started.wait()
    await points.drop_generation(collection, 2, soon())
    for outcome in await asyncio.gather(*readers, return_exceptions=True):
        assert isinstance(outcome, ServiceError)
        assert outcome.reason is Reason.COLLECTION_NOT_FOUND
        assert outcome.metadata == {"collection": address}
    assert await version_at(points, collection) == "1"


async def test_a_dropped_collection_comes_back_empty_and_its_neighbours_stay(two: Store) -> None:
    points, collection = two
    neighbour = f"{collection}-2"
    await points.create(neighbour, CONFIG, soon())
    await points.swap(neighbour, record(1), None, soon())
    await points.drop(collection, soon())
    assert collection not in await points.collections(soon())
    for address in (collection, at(collection, 1), at(collection, 2)):
        await missing(address, lambda address=address: everything(points, address))
    await missing(collection, lambda: points.drop(collection, soon()))
    assert await version_at(points, neighbour) == "1"
    await points.create(collection, CONFIG, soon())
    assert await points.generations(collection, soon()) == Generations(1, ())
    assert await everything(points, collection) == 0
    await points.drop(neighbour, soon())
    assert neighbour not in await points.collections(soon())


async def test_what_is_not_there_is_named(two: Store) -> None:
    points, collection = two
    calls: list[Callable[[str], Awaitable[Any]]] = [
        lambda address: points.scroll(address, wire.Selection(), 10, soon()),
        lambda address: points.retrieve(address, [RECORD], soon()),
        lambda address: points.count(address, wire.Selection(), soon()),
        lambda address: points.query(
            address, wire.Query(None, "words", wire.Selection(), 1, 50, 10), soon()
        ),
        lambda address: points.upsert(address, [chunk("words")], soon()),
        lambda address: points.swap(address, record(1), None, soon()),
        lambda address: points.advance(address, record(1), 1, soon()),
        lambda address: points.set_payload(address, RECORD, {"seq": 2}, soon()),
        lambda address: points.delete(address, wire.Selection(ids=(RECORD,)), soon()),
        lambda address: points.optimize(address, soon()),
    ]
    for address in (at(collection, 7), at("nothere", 1), "nothere"):
        for call in calls:
            await missing(address, lambda call=call, address=address: call(address))
    await missing("nothere", lambda: points.generations("nothere", soon()))
    await missing("nothere", lambda: points.create_generation("nothere", 2, CONFIG, soon()))
    await missing("nothere", lambda: points.switch("nothere", 2, soon()))
    await missing(at(collection, 7), lambda: points.switch(collection, 7, soon()))
    assert await version_at(points, collection) == "1"


@pytest.mark.parametrize(("stored", "outcome"), [(None, "new"), (4, "new"), (5, "old"), (6, "old")])
async def test_advance_writes_what_is_absent_or_lower(
    two: Store, stored: int | None, outcome: str
) -> None:
    points, collection = two
    address = at(collection, 2)
    await points.delete(address, wire.Selection(ids=(RECORD,)), soon())
    if stored is not None:
        await points.upsert(address, [record(stored, "old")], soon())
    await points.advance(address, record(5, "new"), 5, soon())
    assert await version_at(points, address) == outcome
    assert await version_at(points, collection) == "1"


async def test_of_many_that_advance_at_once_the_highest_stays(two: Store) -> None:
    points, collection = two
    address = at(collection, 2)
    order = [7, 3, 12, 5, 9, 2, 11, 4, 8, 10, 6]
    writers = [points.advance(address, record(seq, str(seq)), seq, soon()) for seq in order]
    await asyncio.gather(*writers)
    assert await version_at(points, address) == "12"


async def test_count_is_exact_and_takes_conditions(two: Store) -> None:
    points, collection = two
    records = [wire.Point(ids.record_id(f"d{n}"), {"kind": "record", "seq": n}) for n in range(150)]
    await points.upsert(at(collection, 2), records, soon())
    assert await everything(points, at(collection, 2)) == 152
    early = wire.Selection((wire.Match("kind", "record"), wire.Between("seq", 0, 9)))
    assert await points.count(at(collection, 2), early, soon()) == 11  # one more has seq 1
    ids_of = wire.Selection(ids=(records[0].id, records[1].id, ids.record_id("nobody")))
    assert await points.count(at(collection, 2), ids_of, soon()) == 2


async def test_an_optimised_generation_holds_what_it_held(two: Store) -> None:
    points, collection = two
    address = at(collection, 2)
    written = [chunk("an owner"), record(2, "1")]
    await points.upsert(address, written, soon())
    await points.optimize(address, soon())
    assert await everything(points, address) == 3
    question = wire.Query(written[0].dense, "owner", wire.Selection(), 5, 50, 10)
    found = await points.query(address, question, soon())
    assert [passage.text for passage in found.passages] == ["an owner"]
    await points.upsert(address, [record(3, "2")], soon())
    assert await version_at(points, address) == "2"


def test_an_address_names_a_collection_and_perhaps_a_generation() -> None:
    assert split("documents") == ("documents", None)
    assert split(at("documents", 3)) == ("documents", 3)
    for bad in ("documents@", "documents@x", "documents@1@2", "documents@-1", "documents@²"):
        with pytest.raises(ServiceError) as caught:
            split(bad)
        assert caught.value.reason is Reason.COLLECTION_NOT_FOUND


async def missing(address: str, call: Callable[[], Awaitable[Any]]) -> None:
    """The call says that there is nothing at this address."""
    with pytest.raises(ServiceError) as caught:
        await call()
    assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
    assert caught.value.metadata == {"collection": address}
