"""What both adapters of `Points` must do alike."""

from __future__ import annotations

from typing import Any

import pytest
from support.store import CONFIG, a_stamp, count, soon, vector_of

from gateway.search import ids, wire
from gateway.search.points import Points
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

Store = tuple[Points, str]


@pytest.fixture
async def made(store: Store) -> Store:
    points, collection = store
    await points.create(collection, CONFIG, soon())
    await points.swap(collection, a_stamp(), None, soon())
    return store


def record(document_id: str, version: str, seq: int = 1, **more: Any) -> wire.Point:
    payload = {"kind": "record", "document_id": document_id, "version": version, "seq": seq}
    return wire.Point(ids.record_id(document_id), {**payload, **more})


def chunk(
    document_id: str, version: str, text: str, ordinal: int = 0, **metadata: Any
) -> wire.Point:
    payload = {
        "kind": "chunk",
        "document_id": document_id,
        "version": version,
        "ordinal": ordinal,
        "text": text,
        "metadata": metadata,
    }
    point_id = ids.chunk_id(document_id, version, ordinal)
    return wire.Point(point_id, payload, wire.pack(vector_of(text).tolist()), text)


def question(
    *,
    like: str | None = None,
    words: str | None = None,
    selection: wire.Selection | None = None,
    limit: int = 10,
) -> wire.Query:
    vector = None if like is None else wire.pack(vector_of(like).tolist())
    return wire.Query(vector, words, selection or wire.Selection(), limit, 50, 10)


async def test_create_is_idempotent(store: Store) -> None:
    points, collection = store
    await points.create(collection, CONFIG, soon())
    await points.swap(collection, record("a", "1"), None, soon())
    await points.create(collection, CONFIG, soon())
    assert len(await points.retrieve(collection, [ids.record_id("a")], soon())) == 1
    await points.ping(soon())


async def test_a_swap_without_seq_inserts_only(made: Store) -> None:
    points, collection = made
    await points.swap(collection, record("a", "first"), None, soon())
    await points.swap(collection, record("a", "second", 9), None, soon())
    [found] = await points.retrieve(collection, [ids.record_id("a")], soon())
    assert (found.payload["version"], found.payload["seq"]) == ("first", 1)


async def test_a_swap_with_seq_updates_only_that_seq(made: Store) -> None:
    points, collection = made
    await points.swap(collection, record("a", "first", 1), None, soon())
    await points.swap(collection, record("a", "stranger", 8), 7, soon())
    await points.swap(collection, record("a", "second", 2, extra=1), 1, soon())
    await points.swap(collection, record("a", "late", 2), 1, soon())
    [found] = await points.retrieve(collection, [ids.record_id("a")], soon())
    assert found.payload == record("a", "second", 2, extra=1).payload


async def test_a_swap_with_seq_never_inserts(made: Store) -> None:
    points, collection = made
    await points.swap(collection, record("a", "first", 2), 1, soon())
    assert await points.retrieve(collection, [ids.record_id("a")], soon()) == []


async def test_set_payload_keeps_the_other_fields(made: Store) -> None:
    points, collection = made
    await points.swap(collection, record("a", "first"), None, soon())
    await points.set_payload(collection, ids.record_id("a"), {"seq": 5, "new": [1]}, soon())
    [found] = await points.retrieve(collection, [ids.record_id("a")], soon())
    assert found.payload == record("a", "first", 5, new=[1]).payload


async def test_retrieve_gives_payload_and_vectors(made: Store) -> None:
    points, collection = made
    written = chunk("a", "1", "the owner of a value")
    await points.upsert(collection, [written], soon())
    wanted = [written.id, ids.record_id("nobody")]
    [whole] = await points.retrieve(collection, wanted, soon(), vectors=True)
    assert whole.id == written.id
    assert whole.payload == written.payload
    assert whole.dense is not None
    assert wire.unpack(whole.dense) == pytest.approx(
        vector_of("the owner of a value").tolist(), abs=1e-6
    )
    [part] = await points.retrieve(collection, wanted, soon(), fields=["text"])
    assert part.payload == {"text": "the owner of a value"}
    assert part.dense is None


async def test_more_points_than_one_call_holds(made: Store) -> None:
    points, collection = made
    many = [chunk("a", "1", f"text {at}", at) for at in range(150)]
    await points.upsert(collection, many, soon())
    found = await points.retrieve(collection, [point.id for point in many], soon())
    assert {point.id for point in found} == {point.id for point in many}


async def test_scroll_visits_each_point_once_in_the_order_of_ids(made: Store) -> None:
    points, collection = made
    await points.upsert(collection, [record(f"d{at}", "1") for at in range(25)], soon())
    await points.upsert(collection, [chunk("d0", "1", "another kind")], soon())
    records = wire.Selection((wire.Match("kind", "record"),))
    seen: list[str] = []
    start_id: str | None = None
    while True:
        part = await points.scroll(
            collection, records, 10, soon(), start_id=start_id, fields=["document_id"]
        )
        seen += [point.id for point in part.points]
        assert all(set(point.payload) == {"document_id"} for point in part.points)
        start_id = part.next_id
        if start_id is None:
            break
        # Written behind the cursor or before it: those that were there are unaffected.
        await points.upsert(collection, [record(f"later{len(seen)}", "1")], soon())
    there_from_the_start = {ids.record_id(f"d{at}") for at in range(25)}
    assert there_from_the_start <= set(seen)
    assert seen == sorted(set(seen))


async def test_a_page_is_as_long_as_was_asked(made: Store) -> None:
    points, collection = made
    await points.upsert(collection, [record(f"d{at}", "1") for at in range(150)], soon())
    records = wire.Selection((wire.Match("kind", "record"),))
    first = await points.scroll(collection, records, 140, soon())
    rest = await points.scroll(collection, records, 140, soon(), start_id=first.next_id)
    assert (len(first.points), len(rest.points), rest.next_id) == (140, 10, None)
    seen = [point.id for point in (*first.points, *rest.points)]
    assert seen == sorted(ids.record_id(f"d{at}") for at in range(150))


async def test_more_ids_than_a_batch_are_deleted(made: Store) -> None:
    points, collection = made
    every = [record(f"d{number}", "1", number) for number in range(1100)]
    await points.upsert(collection, every, soon())
    without_last = tuple(point.id for point in every[:-1])
    await points.delete(collection, wire.Selection(ids=without_last), soon())
    assert await count(points, collection, wire.Match("kind", "record")) == 1


async def test_delete_by_ids_and_by_condition(made: Store) -> None:
    points, collection = made
    await points.upsert(collection, [record(f"d{at}", "1", at) for at in range(6)], soon())
    records = wire.Match("kind", "record")
    assert await count(points, collection, records) == 6
    await points.delete(collection, wire.Selection(ids=(ids.record_id("d0"),)), soon())
    assert await count(points, collection, records) == 5
    both = tuple(ids.record_id(name) for name in ("d1", "d2"))
    await points.delete(collection, wire.Selection((wire.Match("seq", 2),), ids=both), soon())
    assert await count(points, collection, records) == 4
    await points.delete(collection, wire.Selection((wire.Between("seq", 4, 5),)), soon())
    left = await points.scroll(collection, wire.Selection((records,)), 10, soon())
    assert {point.payload["document_id"] for point in left.points} == {"d1", "d3"}


async def test_dense_finds_the_nearest_first(made: Store) -> None:
    points, collection = made
    texts = ["alpha words", "beta words", "gamma words"]
    for text in texts:
        await points.upsert(collection, [record(text, "1"), chunk(text, "1", text)], soon())
    found = await points.query(collection, question(like="beta words"), soon())
    best = found.passages[0]
    assert (best.document_id, best.text) == ("beta words", "beta words")
    assert best.dense == pytest.approx(1.0, abs=1e-5)
    assert best.score == pytest.approx(1.0, abs=1e-5)
    assert best.sparse is None
    scores = [passage.score for passage in found.passages]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


async def test_sparse_finds_words_and_weighs_rare_ones_more(made: Store) -> None:
    points, collection = made
    texts = ["common ownership", "common borrowing", "common lifetimes", "nothing shared"]
    for text in texts:
        await points.upsert(collection, [record(text, "1"), chunk(text, "1", text)], soon())
    found = await points.query(collection, question(words="common lifetime"), soon())
    assert found.passages[0].document_id == "common lifetimes"
    assert {passage.document_id for passage in found.passages} == set(texts[:3])
    assert all(passage.dense is None for passage in found.passages)
    assert all((passage.sparse or 0) > 0 for passage in found.passages)
    assert all(0 < passage.score < 1 for passage in found.passages)


async def test_stop_words_alone_find_nothing_by_words_but_dense_goes_on(made: Store) -> None:
    points, collection = made
    await points.upsert(collection, [record("a", "1"), chunk("a", "1", "the owner")], soon())
    nothing = await points.query(collection, question(words="the of and"), soon())
    assert nothing == wire.Found([], [])
    both = await points.query(collection, question(words="the", like="the owner"), soon())
    assert [passage.document_id for passage in both.passages] == ["a"]


async def test_fusion_prefers_what_both_stages_find(made: Store) -> None:
    points, collection = made
    texts = ["alpha drop", "beta drop glue", "gamma", "delta", "epsilon"]
    for text in texts:
        await points.upsert(collection, [record(text, "1"), chunk(text, "1", text)], soon())
    found = await points.query(collection, question(like="alpha drop", words="alpha drop"), soon())
    best, second = found.passages[:2]
    assert best.document_id == "alpha drop"
    assert best.score == pytest.approx(1.0)  # first in both
    assert best.dense is not None
    assert best.sparse is not None
    assert second.score < best.score
    only_dense = [passage for passage in found.passages if passage.sparse is None]
    assert {passage.document_id for passage in only_dense} == set(texts[2:])


async def test_a_document_found_by_different_chunks_is_found_by_both_stages(made: Store) -> None:
    points, collection = made
    await points.upsert(
        collection,
        [
            record("a", "1"),
            chunk("a", "1", "alpha", 0),
            chunk("a", "1", "beta drop", 1),
            record("b", "1"),
            chunk("b", "1", "beta glue drop"),
        ],
        soon(),
    )
    ask = question(like="alpha", words="beta drop")
    found = await points.query(collection, ask, soon())
    first, *others = found.passages
    # Each stage ranks another chunk of it first; no chunk is first in both.
    assert first.document_id == "a"
    assert first.score == pytest.approx(1.0)
    assert {passage.document_id for passage in others} == {"a", "b"}
    scores = [passage.score for passage in found.passages]
    assert scores == sorted(scores, reverse=True)
    alone = await points.query(
        collection, question(like="alpha", words="beta drop", limit=1), soon()
    )
    assert [passage.ordinal for passage in alone.passages] == [first.ordinal]


async def test_chunks_of_another_version_than_the_records_are_told_apart(made: Store) -> None:
    points, collection = made
    stale, orphan = chunk("a", "old", "same text"), chunk("gone", "1", "same text")
    await points.upsert(
        collection, [record("a", "new"), chunk("a", "new", "same text"), stale, orphan], soon()
    )
    ask = question(like="same text", words="same text")
    found = await points.query(collection, ask, soon())
    assert [passage.document_id for passage in found.passages] == ["a"]
    assert set(found.stale) == {stale.id, orphan.id}
    without = wire.Selection(without=tuple(found.stale))
    again = await points.query(
        collection, question(like="same text", words="same text", selection=without), soon()
    )
    assert [passage.document_id for passage in again.passages] == ["a"]
    assert again.stale == []


async def test_filters_run_inside_the_search(made: Store) -> None:
    points, collection = made
    far: list[wire.Point] = []
    for at in range(60):
        far += [record(f"x{at}", "1"), chunk(f"x{at}", "1", f"near {at}", team="red")]
    await points.upsert(collection, far, soon())
    hidden = [record("blue", "1"), chunk("blue", "1", "elsewhere", team="blue")]
    await points.upsert(collection, hidden, soon())
    blue = wire.Selection((wire.Match("metadata.team", "blue"),))
    for ask in (
        question(like="near 1", selection=blue, limit=1),
        question(like="near 1", words="near elsewhere", selection=blue, limit=1),
    ):
        found = await points.query(collection, ask, soon())
        assert [passage.document_id for passage in found.passages] == ["blue"]


async def test_an_unknown_collection_is_named(store: Store) -> None:
    points, _ = store
    for call in (
        points.scroll("nothere", wire.Selection(), 10, soon()),
        points.retrieve("nothere", [ids.STAMP_ID], soon()),
        points.query("nothere", question(like="x"), soon()),
        points.upsert("nothere", [record("a", "1")], soon()),
    ):
        with pytest.raises(ServiceError) as caught:
            await call
        assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
        assert caught.value.metadata == {"collection": "nothere"}


async def test_a_deadline_that_has_passed_is_told(made: Store) -> None:
    points, collection = made
    with pytest.raises(ServiceError) as caught:
        await points.scroll(collection, wire.Selection(), 10, Deadline.after(-1))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
