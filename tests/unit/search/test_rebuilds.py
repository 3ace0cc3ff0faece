"""Rebuilds that are killed, given up, taken over and written into at every call they make."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from support.gateways import (
    NEW,
    OLD,
    Copies,
    Gateway,
    at_steps,
    documents,
    kill,
    only_what_counts,
    steps,
)
from support.store import COLLECTION, soon

from gateway.reindexing import Reindexer, SourceDocument
from gateway.search.points import at
from gateway.search.types import Chunking, Stamp, Target
from gateway.search.versions import NewVersion
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

LOST = (Reason.REINDEX_RUNNING, Reason.COLLECTION_NOT_FOUND)
BEFORE = {"a": "one", "b": "two", "c": "three"}


async def a_store() -> Gateway:
    gateway = Gateway()
    await gateway.start()
    for document_id, text in BEFORE.items():
        await gateway.put(document_id, text)
    await gateway.put("gone", "four")
    await gateway.delete("gone")
    return gateway


async def stamp(gateway: Gateway) -> Stamp:
    return await gateway.search._stamps.fresh(COLLECTION, soon())


async def an_hour_later(gateway: Gateway) -> None:
    """The builder has not said for a long time that it lives."""
    await gateway.search._stamps.change(COLLECTION, lambda it: replace(it, renewed_at=1), soon())


async def unless_lost(run: Awaitable[bool]) -> bool:
    """What `run` returns; True when the builder noticed that its claim is lost."""
    try:
        return await run
    except ServiceError as error:
        if error.reason not in LOST:
            raise
        return True


@pytest.mark.parametrize("then", ["resume", "abandon", "another", "upkeep"])
async def test_killed_at_any_call_the_collection_is_whole(then: str) -> None:
    for number in steps():
        first = await a_store()
        builder = Gateway(first)
        killed = await at_steps(builder, [(number, kill)], builder.rebuild())
        other = Gateway(first)
        assert await documents(other) == BEFORE
        match then:
            case "resume":
                await other.rebuild()
                assert (await stamp(other)).model == NEW
                assert (await stamp(other)).generation == 2
            case "abandon":
                await other.abandon()
            case "another":
                claim = await stamp(other)
                if claim.next is not None:
                    with pytest.raises(ServiceError) as caught:
                        await other.rebuild("another")
                    assert caught.value.reason is Reason.REINDEX_RUNNING
                    await an_hour_later(other)
                await other.rebuild("another")
                assert (await stamp(other)).model == NEW
            case "upkeep" if (await stamp(other)).next is not None:
                await an_hour_later(other)
        assert await documents(other) == BEFORE
        await other.put("a", "later")
        assert await documents(other) == {**BEFORE, "a": "later"}
        await only_what_counts(other)
        if not killed:
            return


Write = Callable[[Gateway], Awaitable[object]]
WRITES: list[tuple[Write, dict[str, str]]] = [
    (lambda it: it.put("a", "new"), {**BEFORE, "a": "new"}),
    (lambda it: it.put("d", "new"), {**BEFORE, "d": "new"}),
    (lambda it: it.put("gone", "back"), {**BEFORE, "gone": "back"}),
    (lambda it: it.delete("b"), {"a": "one", "c": "three"}),
]


@pytest.mark.parametrize("write", range(len(WRITES)))
async def test_what_is_written_at_any_call_is_there_after_the_switch(write: int) -> None:
    act, expected = WRITES[write]
    for number in steps():
        first = await a_store()
        builder, other = Gateway(first), Gateway(first)
        await other.search._stamps.fresh(COLLECTION, soon())
        reached = await at_steps(builder, [(number, partial(act, other))], builder.rebuild())
        if not reached:
            return
        assert (await stamp(first)).generation == 2
        assert await documents(first) == expected
        await only_what_counts(first)


@pytest.mark.parametrize("late", [1, 2, 3, 5, 8])
async def test_written_at_one_call_and_undone_at_a_later_one(late: int) -> None:
    for number in steps():
        first = await a_store()
        builder, other = Gateway(first), Gateway(first)
        acts = [
            (number, partial(other.put, "a", "new")),
            (number, partial(other.delete, "b")),
            (number + late, partial(other.delete, "a")),
            (number + late, partial(other.put, "b", "back")),
        ]
        if not await at_steps(builder, acts, builder.rebuild()):
            return
        assert await documents(first) == {"b": "back", "c": "three"}
        await only_what_counts(first)


async def test_a_builder_that_was_overtaken_at_any_call_changes_nothing() -> None:
    for number in steps():
        first = await a_store()
        slow, quick = Gateway(first), Gateway(first)

        async def overtake(quick: Gateway = quick) -> None:
            await an_hour_later(quick)
            await quick.rebuild("quick")
            await quick.put("a", "later")

        if not await unless_lost(at_steps(slow, [(number, overtake)], slow.rebuild("slow"))):
            return
        assert await documents(first) == {**BEFORE, "a": "later"}
        await slow.abandon("slow")
        assert await documents(first) == {**BEFORE, "a": "later"}
        await only_what_counts(first)


async def test_a_builder_that_was_overtaken_switches_to_nothing_unfinished() -> None:
    for number in steps():
        first = await a_store()
        slow, quick = Gateway(first), Gateway(first)

        async def overtake(quick: Gateway = quick) -> None:
            await an_hour_later(quick)
            await quick.search.builds.claim(COLLECTION, "quick", NEW, None, soon())

        if not await unless_lost(at_steps(slow, [(number, overtake)], slow.rebuild("slow"))):
            return
        assert await documents(first) == BEFORE
        await quick.rebuild("quick")
        assert await documents(first) == BEFORE
        await only_what_counts(first)


async def test_given_up_at_any_call_nothing_is_left() -> None:
    for number in steps():
        first = await a_store()
        builder, other = Gateway(first), Gateway(first)
        if not await unless_lost(at_steps(builder, [(number, other.abandon)], builder.rebuild())):
            return
        await other.abandon()
        assert await documents(first) == BEFORE
        await only_what_counts(first)


async def test_given_up_the_generation_of_a_collection_that_is_gone_goes_too() -> None:
    gateway = await a_store()
    await gateway.copy()
    del gateway.points.live[COLLECTION]  # whoever dropped it was stopped before its end
    await gateway.abandon()
    assert at(COLLECTION, 2) not in gateway.points.stored


@pytest.mark.parametrize("writer_is_killed", [False, True])
async def test_a_collection_deleted_at_any_call_of_a_rebuild_is_empty(
    writer_is_killed: bool,
) -> None:
    for number in steps():
        first = await a_store()
        builder, other = Gateway(first), Gateway(first)

        async def delete(other: Gateway = other, number: int = number) -> None:
            kills = [(number % 7, kill)] if writer_is_killed else []
            await at_steps(other, kills, other.search.delete_collection(COLLECTION, soon()))
            if writer_is_killed:
                again = Gateway(other)
                await again.search.delete_collection(COLLECTION, soon())

        if not await unless_lost(at_steps(builder, [(number, delete)], builder.rebuild())):
            return
        await builder.abandon()
        now = await stamp(first)
        if now.model is None:
            # Whether the rebuild was taken up again or not, in an empty collection.
            assert len(first.points.stored[at(COLLECTION, now.generation)]) == 1
        assert now.model is None or await documents(first) == {}


async def test_the_old_generation_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await a_store()
    await gateway.rebuild()
    kept_s = 300.0
    now_s = time.time()
    monkeypatch.setattr("gateway.search.retirement.time", SimpleNamespace(time=lambda: now_s))
    retirement = Gateway(gateway).search._upkeep._retirement
    for later_s, expected in ((0.0, [1, 2]), (kept_s - 5, [1, 2]), (kept_s + 5, [2])):
        now_s = time.time() + later_s
        await retirement.look(COLLECTION, soon())
        there = await gateway.points.generations(COLLECTION, soon())
        assert sorted((there.live, *there.others)) == expected


async def test_numbers_are_never_used_again() -> None:
    gateway = await a_store()
    await gateway.copy("one")
    await gateway.abandon("one")
    await gateway.rebuild("two")
    await gateway.retire()
    await gateway.copy("three")
    await gateway.abandon("three")
    await gateway.rebuild("four")
    assert (await stamp(gateway)).generation == 5


async def test_a_job_that_is_run_again_after_its_switch_does_nothing() -> None:
    gateway = await a_store()
    await gateway.rebuild()
    before = await stamp(gateway)
    await Gateway(gateway).rebuild()
    assert await stamp(gateway) == before
    await Gateway(gateway).abandon()
    assert await stamp(gateway) == before


async def test_cancelled_at_any_call_it_is_given_up_or_says_that_it_is_too_late() -> None:
    seen = set()
    for number in steps():
        first = await a_store()
        builder = Gateway(first)
        running = asyncio.ensure_future(builder.rebuild())

        async def cancel(running: asyncio.Future[None] = running) -> None:
            running.cancel()

        with suppress(asyncio.CancelledError):
            if not await at_steps(builder, [(number, cancel)], running):
                break
        late = await Gateway(first).abandon()
        seen.add(late)
        assert (await stamp(first)).generation == (2 if late else 1)
        assert (await stamp(first)).model == (NEW if late else OLD)
        await only_what_counts(first)
    assert seen == {False, True}


async def test_a_document_keeps_a_chunking_of_its_own_unless_one_is_asked_for() -> None:
    gateway = await a_store()
    own, usual, asked = Chunking(100, 10), Chunking(512, 50), Chunking(800, 80)
    await gateway.put("own", "five", own)
    await gateway.reindexer.run(COLLECTION, None, "one", lambda *_: None)
    for document_id, chunking in (("own", own), ("a", usual)):
        record = await gateway.search.record(COLLECTION, document_id, soon())
        assert record is not None
        assert Chunking(record.chunk_size, record.overlap) == chunking
    await gateway.reindexer.run(COLLECTION, asked, "two", lambda *_: None)
    for document_id in ("own", "a"):
        record = await gateway.search.record(COLLECTION, document_id, soon())
        assert record is not None
        assert Chunking(record.chunk_size, record.overlap) == asked
    assert (await stamp(gateway)).chunking == asked


async def test_what_cannot_be_is_said_at_once() -> None:
    gateway = await a_store()
    check = gateway.reindexer.check
    with pytest.raises(ServiceError) as caught:
        await check("absent", soon())
    assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
    await check(COLLECTION, soon())
    await gateway.copy()
    with pytest.raises(ServiceError) as caught:
        await check(COLLECTION, soon())
    assert caught.value.reason is Reason.REINDEX_RUNNING
    await an_hour_later(gateway)
    await check(COLLECTION, soon())


async def test_it_gives_signs_of_life_while_it_optimises_and_compares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = await a_store()
    monkeypatch.setattr("gateway.reindexing.SIGN_EVERY_S", 0)
    signs: list[tuple[int, int]] = []
    while_optimising = 0

    async def optimize(*_: object) -> None:
        nonlocal while_optimising
        before = len(signs)
        async with asyncio.timeout(20):
            while len(signs) < before + 3:
                await asyncio.sleep(0)
        while_optimising = len(signs)

    monkeypatch.setattr(gateway.search.copier, "optimize", optimize)
    await gateway.reindexer.run(COLLECTION, None, "one", lambda *sign: signs.append(sign))
    copied = signs.index((3, 3))
    assert {*signs[:copied]} == {(0, 3), (1, 3), (2, 3)}
    assert while_optimising > copied + 3
    assert len(signs) >= while_optimising + 3  # a document each in the comparison after it
    assert set(signs[copied:]) == {(3, 3)}
    ended = len(signs)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(signs) == ended


@pytest.mark.parametrize(("window", "expected"), [(7, 1), (2 * 7, 2), (1000, 3)])
async def test_large_documents_wait_for_room(
    monkeypatch: pytest.MonkeyPatch, window: int, expected: int
) -> None:
    """Each of the three is seven chunks at worst."""
    monkeypatch.setattr("gateway.reindexing.WINDOW_CHUNKS", window)
    gateway = Gateway()
    await gateway.start()
    for name in BEFORE:
        await gateway.put(name, "x" * 1000)
    under_way = most = 0

    class Slow(Copies):
        async def prepare(
            self, document: SourceDocument, target: Target, deadline: Deadline
        ) -> NewVersion:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            for _ in range(10):
                await asyncio.sleep(0)
            made = await super().prepare(document, target, deadline)
            under_way -= 1
            return made

    await Reindexer(gateway.search, Slow()).run(COLLECTION, None, "one", lambda *_: None)
    assert most == expected
    assert (await stamp(gateway)).model == NEW
