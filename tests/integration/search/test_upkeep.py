"""What the store does by itself, on a clock that tests turn."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient
from support.store import COLLECTION, a_plan, put, soon, vector_of, version

from gateway.search import ids
from gateway.search.embedded import EmbeddedPoints
from gateway.search.points import Points, unavailable
from gateway.search.retirement import Retirement
from gateway.search.search import Search
from gateway.search.server import ServerPoints
from gateway.search.upkeep import OPENINGS, Upkeep
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

Store = tuple[Points, str]


async def never_called(deadline: Deadline) -> None:
    raise AssertionError("is prepared already")


def upkeep_of(
    search: Search,
    leftovers: asyncio.Event,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Upkeep:
    retirement = Retirement(search._points, search._stamps, search.builds, 300.0)
    return Upkeep(search._points, search._stamps, retirement, never_called, leftovers, sleep=sleep)


async def test_one_call_sweeps_until_what_is_left_is_old_enough(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, collection = store
    await put(search, collection, version("deleted", "one"))
    await search.delete_document(collection, "deleted", soon())
    now_s = time.time()
    monkeypatch.setattr("gateway.search.sweep.time", SimpleNamespace(time=lambda: now_s))

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    async def left() -> int:
        return len(await points.retrieve(collection, [ids.record_id("deleted")], soon()))

    upkeep = upkeep_of(search, asyncio.Event(), sleep)
    assert await left() == 1
    await upkeep._sweep_until_old()
    assert await left() == 0


async def test_a_store_whose_process_dies_over_opening_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.search.upkeep.OPENING_PAUSE_S", 0.0)
    points = EmbeddedPoints(tmp_path)
    real, deaths = points.create, OPENINGS - 1

    async def breaks_off(*arguments: Any) -> None:
        nonlocal deaths
        if deaths:
            deaths -= 1
            raise unavailable("The vector store broke off.")
        await real(*arguments)

    monkeypatch.setattr(points, "create", breaks_off)
    search = Search(points, a_plan())
    try:
        await search.start()
        assert (search.fault, deaths) == (None, 0)
        await search.ping()
        deaths = OPENINGS
        again = Search(points, a_plan())
        with pytest.raises(ServiceError, match="broke off"):
            await again.start()
        assert deaths == 0
    finally:
        await search.aclose()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.search.upkeep.PREPARE_PAUSE_S", 0.01)


async def test_a_server_of_another_schema_is_named_and_waited_for(
    waiting: None, caplog: pytest.LogCaptureFixture
) -> None:
    points = ServerPoints(AsyncQdrantClient(":memory:"))
    other = Search(points, a_plan())
    await other._prepare(soon())
    await points.set_payload(COLLECTION, ids.STAMP_ID, {"schema_version": 99}, soon())
    search = Search(points, a_plan())
    with caplog.at_level(logging.WARNING):
        await search.start()
        for _ in range(3):
            await search._upkeep._try_to_prepare(1.0)
    assert "schema version 99" in str(search.fault)
    assert [record.message for record in caplog.records].count(
        f"The vector store cannot be used yet: {search.fault}"
    ) == 1
    for call in (
        search.ping(),
        search.stamp(COLLECTION, soon()),
        search.nearest(
            COLLECTION,
            text="x",
            vector=vector_of("x"),
            mode="dense",
            filter=None,
            limit=1,
            deadline=soon(),
        ),
    ):
        with pytest.raises(ServiceError, match="schema version 99") as caught:
            await call
        assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
    await points.set_payload(COLLECTION, ids.STAMP_ID, {"schema_version": 1}, soon())
    await usable(search)
    await search.aclose()


async def test_what_nobody_foresaw_does_not_end_the_waiting(
    waiting: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    search = Search(ServerPoints(AsyncQdrantClient(":memory:")), a_plan())
    prepare, failures = search._prepare, iter([KeyError("odd"), KeyError("odd again")])

    async def fails_twice(deadline: Deadline) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        await prepare(deadline)

    monkeypatch.setattr(search._upkeep, "_prepare", fails_twice)
    await search.start()
    assert search.fault == "The vector store failed inside; the log holds the cause."
    await usable(search)
    assert "odd" in caplog.text  # with its traceback
    await search.aclose()


async def test_a_sweep_that_fails_is_made_again(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, _ = store
    leftovers = asyncio.Event()
    upkeep = upkeep_of(search, leftovers)
    with monkeypatch.context() as patch:

        async def fails(*_: object, **__: object) -> None:
            raise KeyError("odd")

        patch.setattr(points, "scroll", fails)
        await upkeep._sweep()
    assert leftovers.is_set()


async def usable(search: Search) -> None:
    async with asyncio.timeout(10):
        while search.fault is not None:
            await asyncio.sleep(0.01)
    await search.ping()
