"""Two writers of one document, a caller that leaves: nothing forgotten, nothing unsaid."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from support.store import put, soon, vector_of, version

from gateway.search import ids
from gateway.search.points import Points
from gateway.search.search import Search
from gateway.search.sweep import sweep
from gateway.search.writing import Writer

Store = tuple[Points, str]


async def revision(search: Search, collection: str) -> int:
    return (await search._stamps._fetch(collection, soon()))[0].revision


def after_first_swap(
    monkeypatch: pytest.MonkeyPatch, points: Points, then: Callable[[], Awaitable[Any]]
) -> None:
    """Runs `then` between the next swap and its reading back."""
    real = points.swap

    async def swap(*arguments: Any) -> None:
        monkeypatch.setattr(points, "swap", real)
        await real(*arguments)
        await then()

    monkeypatch.setattr(points, "swap", swap)


async def test_points_of_a_writer_overtaken_after_it_won_are_swept(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, collection = store
    left: list[str] = []
    writer = Writer(points, search._stamps.bump, lambda: left.append("mine"))
    await writer.replace(collection, version("a", "one", "two"), "w1", soon())
    after_first_swap(monkeypatch, points, lambda: put(search, collection, version("a", "other")))
    _, replaced = await writer.replace(collection, version("a", "three"), "w2", soon())
    assert replaced
    assert left
    # What the winner of the first round replaced, and then forgot: a source and two chunks.
    assert await sweep(points, collection, orphan_age_s=-1) == 3
    document = await search.get_document(collection, "a", soon())
    assert document is not None
    assert document.text == "three"


@pytest.mark.parametrize("write", ["put", "delete"])
async def test_a_caller_that_leaves_does_not_keep_the_revision(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    points, collection = store
    await put(search, collection, version("a", "one"))
    before = await revision(search, collection)
    swapped, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        swapped.set()
        await go_on.wait()

    after_first_swap(monkeypatch, points, hold)
    writing: asyncio.Task[Any]
    if write == "put":
        writing = asyncio.create_task(put(search, collection, version("a", "two")))
    else:
        writing = asyncio.create_task(search.delete_document(collection, "a", soon()))
    await swapped.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    await search._records.aclose()
    assert await revision(search, collection) != before


async def leave_and_write_again(
    search: Search, collection: str, write: str, halted: asyncio.Event, go_on: asyncio.Event
) -> None:
    """Leaves a write that has halted, writes again, and lets the first one go on: nobody sees it.

    halted: set by the store when the first one stands; go_on: what it waits for there.
    """
    writing: asyncio.Task[Any]
    if write == "put":
        writing = asyncio.create_task(put(search, collection, version("a", "two")))
    else:
        writing = asyncio.create_task(search.delete_document(collection, "a", soon()))
    await halted.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await put(search, collection, version("a", "three"))
    go_on.set()
    await search._records.aclose()
    document = await search.get_document(collection, "a", soon())
    assert document is not None
    assert document.text == "three"


@pytest.mark.parametrize("write", ["put", "delete"])
async def test_a_write_whose_caller_left_does_not_come_after_a_later_one(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    points, collection = store
    await put(search, collection, version("a", "one"))
    swapping, go_on = asyncio.Event(), asyncio.Event()
    real = points.swap

    async def swap(*arguments: Any) -> None:
        monkeypatch.setattr(points, "swap", real)
        swapping.set()
        await go_on.wait()
        await real(*arguments)

    monkeypatch.setattr(points, "swap", swap)
    await leave_and_write_again(search, collection, write, swapping, go_on)


async def test_stale_chunks_found_call_for_a_sweep(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, collection = store
    await search._upkeep.aclose()  # it would answer the call
    crashed = Writer(points, search._stamps.bump, search._leftovers.set)

    async def crash(*_: Any) -> None:
        raise ConnectionError

    await put(search, collection, version("a", "same words"))
    with monkeypatch.context() as patch:
        patch.setattr(points, "swap", crash)
        with pytest.raises(ConnectionError):
            await crashed.replace(collection, version("b", "same words"), "w", soon())
    search._leftovers.clear()
    hits = await search.nearest(
        collection,
        text="same words",
        vector=vector_of("same words"),
        mode="hybrid",
        filter=None,
        limit=5,
        deadline=soon(),
    )
    assert [hit.document_id for hit in hits] == ["a"]
    assert search._leftovers.is_set()


@pytest.mark.parametrize("write", ["put", "delete"])
async def test_a_write_whose_caller_left_before_it_had_read_does_nothing(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    points, collection = store
    await put(search, collection, version("a", "one"))
    reading, go_on = asyncio.Event(), asyncio.Event()
    real = points.retrieve

    async def retrieve(address: str, wanted: Sequence[str], *more: Any, **named: Any) -> Any:
        if list(wanted) == [ids.record_id("a")] and not reading.is_set():
            reading.set()
            await go_on.wait()
        return await real(address, wanted, *more, **named)

    monkeypatch.setattr(points, "retrieve", retrieve)
    await leave_and_write_again(search, collection, write, reading, go_on)
