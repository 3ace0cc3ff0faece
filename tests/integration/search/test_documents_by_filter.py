"""Documents listed page by page and deleted by a filter, while others write."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from support.store import MODEL, a_plan, put, soon, version

from gateway.search import wire
from gateway.search.filters import parse_filter
from gateway.search.points import Points
from gateway.search.search import Search
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

Store = tuple[Points, str]


async def listed(search: Search, collection: str, raw: dict[str, object]) -> list[str]:
    page = await search.list_documents(
        collection, limit=1000, cursor=None, filter=parse_filter(raw), deadline=soon()
    )
    assert page.next_cursor is None
    return sorted(document.id for document in page.documents)


async def write_about(search: Search, collection: str, stop: asyncio.Event, seed: int) -> None:
    """Adds, replaces and deletes documents, a few of those that stay among them."""
    chance = random.Random(seed)
    for at in range(1000):
        if stop.is_set():
            return
        name = f"passing {chance.randrange(30)}"
        if chance.random() < 0.3:
            await search.delete_document(collection, name, soon())
        elif chance.random() < 0.4:
            name = f"stays {chance.randrange(40)}"
            await put(search, collection, version(name, f"again {at}", team="red", at=at))
        else:
            await put(search, collection, version(name, f"text {at}", team="red"))
    raise AssertionError("the pages take too long")


async def test_pages_hold_what_stays_exactly_once_while_others_write(
    search: Search, store: Store
) -> None:
    _, collection = store
    staying = [f"stays {at}" for at in range(40)]
    for name in staying:
        await put(search, collection, version(name, name, team="red"))
    stop = asyncio.Event()
    writers = [asyncio.create_task(write_about(search, collection, stop, seed)) for seed in (1, 2)]
    try:
        for _ in range(3):
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page = await search.list_documents(
                    collection,
                    limit=7,
                    cursor=cursor,
                    filter=parse_filter({"team": "red"}),
                    deadline=soon(),
                )
                seen += [document.id for document in page.documents]
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert len(seen) == len(set(seen))
            assert set(staying) <= set(seen)
    finally:
        stop.set()
        await asyncio.gather(*writers)


async def test_deleting_by_a_filter_deletes_those_and_no_others(
    search: Search, store: Store
) -> None:
    _, collection = store
    for at in range(40):
        new = version(f"d{at}", *[f"text {at} {part}" for part in range(at % 3)], n=at, team="red")
        await put(search, collection, new)
    where = parse_filter({"n": {"gte": 10, "lt": 30}, "not": {"n": {"any": [12, 13.0]}}})
    chunks = sum(at % 3 for at in range(10, 30) if at not in (12, 13))
    assert await search.delete_documents(collection, where, soon()) == (18, chunks)
    left = sorted(f"d{at}" for at in range(40) if not 10 <= at < 30 or at in (12, 13))
    assert await listed(search, collection, {"team": "red"}) == left
    assert await search.get_document(collection, "d20", soon()) is None
    assert await search.delete_documents(collection, where, soon()) == (0, 0)


async def test_what_is_replaced_meanwhile_and_passes_no_longer_stays(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, collection = store
    for name in ("saved", "doomed"):
        await put(search, collection, version(name, name, draft=True))
    delete = search._records.delete

    async def after_a_writer(collection: str, document_id: str, *more: Any) -> int | None:
        new = version(document_id, "new text", draft=document_id != "saved")
        await put(search, collection, new)
        return await delete(collection, document_id, *more)

    monkeypatch.setattr(search._records, "delete", after_a_writer)
    assert await search.delete_documents(collection, parse_filter({"draft": True}), soon()) == (
        1,
        1,
    )
    assert await listed(search, collection, {}) == ["saved"]


async def test_nothing_is_deleted_after_the_error_was_told(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, collection = store
    for name in ("slow", "bad"):
        await put(search, collection, version(name, name, team="red"))
    delete, told, begun = search._records.delete, asyncio.Event(), asyncio.Event()

    async def faulty(collection: str, document_id: str, *more: Any) -> int | None:
        if document_id == "bad":
            await begun.wait()
            raise ServiceError(Reason.VECTOR_DB_UNAVAILABLE, "gone")
        begun.set()
        await told.wait()
        return await delete(collection, document_id, *more)

    monkeypatch.setattr(search._records, "delete", faulty)
    others = asyncio.all_tasks()
    with pytest.raises(ServiceError, match="gone"):
        await search.delete_documents(collection, parse_filter({"team": "red"}), soon())
    told.set()
    if running := asyncio.all_tasks() - others:
        await asyncio.wait(running)
    assert await listed(search, collection, {}) == ["bad", "slow"]


async def test_out_of_time_it_keeps_what_is_deleted_and_a_retry_goes_on(
    search: Search, store: Store
) -> None:
    _, collection = store
    for at in range(40):
        await put(search, collection, version(f"d{at}", f"text {at}", team="red"))
    where = parse_filter({"team": "red"})
    tries = 0
    for _ in range(1000):
        try:
            # Time for some of them, on any machine: it grows until that is so.
            await search.delete_documents(collection, where, Deadline.after(0.06 + 0.02 * tries))
        except ServiceError as error:
            if error.reason is not Reason.DEADLINE_EXCEEDED:
                raise
            tries += 1
        else:
            break
    assert await listed(search, collection, {}) == []


async def test_a_range_that_the_index_cannot_answer_is_refused(
    search: Search, store: Store
) -> None:
    points, collection = store
    search = Search(points, a_plan(collection, year="integer", seen="datetime"))
    for raw, field in (
        ({"year": {"gte": "2024-01-01"}}, "filter.year"),
        ({"or": [{"x": 1}, {"seen": {"lt": 5}}]}, "filter.or[1].seen"),
        ({"not": {"seen": 5}}, "filter.not.seen"),
    ):
        with pytest.raises(ServiceError) as caught:
            await listed(search, collection, raw)
        assert caught.value.reason is Reason.INVALID_ARGUMENT
        assert caught.value.metadata == {"field": field}
        assert "FILTER_FIELDS" in caught.value.message


async def test_other_filter_fields_make_other_indexes_in_every_collection(store: Store) -> None:
    """What was indexed as a time is found as a number when the setting says so."""
    points, collection = store
    kinds: list[wire.IndexKind] = ["datetime", "float", "keyword"]
    for kind in kinds:
        search = Search(points, a_plan(collection, when=kind))
        await search._prepare(soon())
        for name in (collection, f"{collection}-2"):
            await search.ensure(name, MODEL, None, soon())
            await put(search, name, version("time", "text", when="2024-05-01T12:00:00Z"))
            await put(search, name, version("number", "text", when=7))
            since: object = "2024-01-01" if kind == "datetime" else 5
            expected = ["time"] if kind == "datetime" else ["number"]
            assert await listed(search, name, {"when": {"gte": since}}) == expected
