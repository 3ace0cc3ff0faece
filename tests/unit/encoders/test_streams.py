"""The slot that is prepared, and the threads that take from it."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest
from support.batching import FakeModel, Text, bench

from encoders.limits import Limits
from encoders.stage import Stage
from encoders.streams import ModelThreads


async def settled() -> None:
    """Lets every callback run that is due, but no batch end."""
    for _ in range(4):
        await asyncio.sleep(0)


def names(batches: list[list[Text]]) -> list[list[object]]:
    return [[text.name for text in batch] for batch in batches]


async def test_what_is_prepared_grows_until_it_is_taken() -> None:
    made = bench()
    asked = []
    for n in range(3):
        asked.append(made.ask([Text(n)]))
        await settled()
    made.batcher.start()
    await asyncio.gather(*asked)
    assert names(made.model.batches) == [[0, 1, 2]]
    await made.batcher.aclose()


async def test_a_person_goes_before_bulk_that_is_prepared_and_bulk_keeps_its_place() -> None:
    made = bench(Limits(batch_items=1))
    asked = [made.ask([Text("bulk 1")], lane="bulk"), made.ask([Text("bulk 2")], lane="bulk")]
    await settled()
    asked.append(made.ask([Text("person")]))
    await settled()
    made.batcher.start()
    await asyncio.gather(*asked)
    assert names(made.model.batches) == [["person"], ["bulk 1"], ["bulk 2"]]
    await made.batcher.aclose()


async def test_who_leaves_what_is_prepared_makes_room_in_it() -> None:
    made = bench(Limits(batch_items=2))
    asked = [made.ask([Text(n)]) for n in range(3)]
    await settled()
    asked[0].cancel()
    await settled()
    made.batcher.start()
    await asyncio.gather(*asked, return_exceptions=True)
    assert names(made.model.batches) == [[1, 2]]
    await made.batcher.aclose()


async def test_arrivals_of_one_turn_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    chosen: list[int] = []
    choose = made.batcher._schedule.choose
    monkeypatch.setattr(made.batcher._schedule, "choose", lambda: chosen.append(1) or choose())
    asked = [made.ask([Text(n)]) for n in range(50)]
    await settled()
    assert len(chosen) == 1
    made.batcher.start()
    await asyncio.gather(*asked)
    await made.batcher.aclose()


async def test_a_call_is_shared_among_the_streams() -> None:
    made = bench(Limits(batch_tokens=1000), FakeModel(seconds_per_token=0.001), streams=2)
    made.batcher.start()
    await made.ask([Text(n, 20) for n in range(16)])
    assert made.streams.most_at_once == 2
    assert made.model.now_s <= 0.320 / 2 + 0.08  # one stream alone would take 0.32 s
    await made.batcher.aclose()


async def test_an_answer_says_how_long_it_waited_and_computed() -> None:
    made = bench(Limits(batch_items=1), FakeModel(seconds_per_token=1.0))
    made.batcher.start()
    first = asyncio.create_task(made.batcher.submit([Text("a", 3)], [3], lane="interactive"))
    second = asyncio.create_task(made.batcher.submit([Text("b", 2)], [2], lane="interactive"))
    assert [((await asked).queue_s, (await asked).model_s) for asked in (first, second)] == [
        (0.0, 3.0),
        (3.0, 2.0),
    ]
    await made.batcher.aclose()


def test_a_stage_gives_each_thing_to_one_taker_and_ends_for_all() -> None:
    stage: Stage[int] = Stage()
    got: SimpleQueue[int] = SimpleQueue()

    def take() -> None:
        while (thing := stage.take()) is not None:
            got.put(thing)

    with ThreadPoolExecutor(3) as takers:
        running = [takers.submit(take) for _ in range(3)]
        for thing in range(1, 101):
            stage.put(thing)
            assert got.get(timeout=10) == thing
        stage.close()
        for taker in running:
            taker.result(10)
    assert got.empty()
    assert stage.take() is None


async def test_what_is_taken_back_nobody_gets() -> None:
    stage: Stage[str] = Stage()
    stage.put("one")
    assert stage.take_back() == "one"
    assert stage.take_back() is None
    stage.put("two")
    assert stage.take() == "two"
    stage.put("three")
    with pytest.raises(RuntimeError, match="holds something"):
        stage.put("four")


async def test_the_threads_that_warm_are_those_that_compute_side_by_side() -> None:
    threads = ModelThreads()
    warmed = await threads.warm(3, threading.get_ident)
    assert len(set(warmed)) == 3
    together = threading.Barrier(3)
    stage: Stage[int] = Stage()
    told: asyncio.Queue[int] = asyncio.Queue()
    taken: asyncio.Queue[int] = asyncio.Queue()

    def compute(thing: int) -> int:
        together.wait(10)  # broken, should they ever run one after the other
        return threading.get_ident()

    threads.start(stage, compute, taken.put_nowait, told.put_nowait, pytest.fail)
    async with asyncio.timeout(20):
        for thing in range(3):
            stage.put(thing)
            assert await taken.get() == thing
        assert {await told.get() for _ in range(3)} == set(warmed)
    stage.close()
    await threads.join()


class Witness(Stage[int]):
    """Notes the threads that come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.takers: list[int] = []

    def take(self) -> int | None:
        self.takers.append(threading.get_ident())
        return super().take()


async def test_no_thread_serves_that_has_not_warmed_however_often_it_starts() -> None:
    for _ in range(100):
        threads = ModelThreads()
        first = await threads.load(threading.get_ident)
        warmed = await threads.warm(2, threading.get_ident)
        assert warmed[0] == first
        assert await threads.load(threading.get_ident) == first
        stage = Witness()
        stage.close()
        threads.start(stage, lambda _: None, pytest.fail, pytest.fail, pytest.fail)
        async with asyncio.timeout(10):
            while len(stage.takers) < 2:
                await asyncio.sleep(0)
        await threads.join()
        assert sorted(stage.takers) == sorted(warmed)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
async def test_threads_of_the_model_leave_the_event_loop_its_time() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    threads = ModelThreads()
    before = priority()
    found = [await threads.load(priority), *await threads.warm(2, priority)]
    assert found == [min(before + 10, 19)] * 3
    assert priority() == before
    await threads.join()


class Panic(BaseException):
    """As Rust's panics come to Python."""


async def test_a_stream_that_dies_is_told() -> None:
    threads = ModelThreads()
    stage: Stage[int] = Stage()
    died: asyncio.Queue[BaseException] = asyncio.Queue()

    def compute(_: int) -> None:
        raise Panic

    threads.start(stage, compute, lambda _: None, pytest.fail, died.put_nowait)
    stage.put(1)
    assert isinstance(await asyncio.wait_for(died.get(), 10), Panic)
    stage.close()
    await threads.join()


async def test_a_warm_up_that_fails_is_told_whatever_the_others_do() -> None:
    threads = ModelThreads()

    def warm() -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        await asyncio.wait_for(threads.warm(3, warm), 10)
    await threads.join()
