"""Models and batchers that fail: who is told what, and what becomes of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support.batching import Bench, FakeModel, Text, bench

from encoders.limits import Limits
from encoders.streams import ModelThreads
from runtime.errors import Reason, ServiceError


async def settled() -> None:
    """Lets every task that can go on do so: each await of the batcher takes a turn or two."""
    for _ in range(200):
        await asyncio.sleep(0)


async def refused(made: Bench, texts: list[Text]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await made.ask(texts)
    return caught.value


@pytest.mark.parametrize("size", [1, 2, 7, 32])
async def test_a_poisoned_text_hurts_only_its_caller(size: int) -> None:
    made = bench()
    asked = [made.ask([Text(n, poisoned=n == size // 2)]) for n in range(size)]
    await settled()
    made.batcher.start()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for n, answer in enumerate(answers):
        if n == size // 2:
            assert isinstance(answer, ServiceError)
            assert answer.reason == Reason.MODEL_FAILED
        else:
            assert answer == [n]
    assert made.health == []
    await made.batcher.aclose()


async def test_a_wrong_number_of_results_is_a_failure() -> None:
    class Forgetful(FakeModel):
        def run(self, batch: Sequence[Text]) -> list[object]:
            return super().run(batch)[1:]

    made = bench(model=Forgetful())
    made.batcher.start()
    with pytest.raises(ServiceError) as caught:
        await made.ask([Text("a")])
    assert caught.value.reason == Reason.MODEL_FAILED
    await made.batcher.aclose()


async def test_a_broken_model_is_taken_out_and_comes_back_by_itself() -> None:
    made = bench(Limits(max_failures=2, probe_interval_s=0.001))
    made.batcher.start()
    made.model.broken = True
    for _ in range(2):
        with pytest.raises(ServiceError) as caught:
            await made.ask([Text("a")])
        assert caught.value.reason == Reason.MODEL_FAILED
    await settled()
    assert made.health == [False]
    error = await refused(made, [Text("a")])
    assert error.reason == Reason.UNAVAILABLE
    made.model.broken = False
    async with asyncio.timeout(10):
        while made.health != [False, True]:
            await asyncio.sleep(0)
    assert await made.ask([Text("b")]) == ["b"]
    await made.batcher.aclose()


async def test_a_model_that_stays_broken_is_given_up() -> None:
    made = bench(Limits(max_failures=1, probe_interval_s=0.0, max_probes=5))
    made.batcher.start()
    made.model.broken = True
    assert (await refused(made, [Text("a")])).reason == Reason.MODEL_FAILED
    async with asyncio.timeout(10):
        while not made.given_up:
            await asyncio.sleep(0)
    assert made.model.probes == 1 + 5
    await settled()
    assert made.health == [False]
    assert (await refused(made, [Text("b")])).reason == Reason.UNAVAILABLE
    assert made.given_up == [None]
    await made.batcher.aclose()


async def test_a_fault_of_the_batcher_itself_ends_the_process_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = bench()
    monkeypatch.setattr(made.batcher._schedule, "choose", lambda: 1 // 0)
    made.batcher.start()
    for _ in range(2):
        assert (await refused(made, [Text("a")])).reason == Reason.UNAVAILABLE
    assert made.given_up == [None]
    await made.batcher.aclose()
    assert (await refused(made, [Text("a")])).reason == Reason.DRAINING


async def test_a_stream_that_dies_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(_: object) -> None:
        raise MemoryError

    made, threads = bench(), ModelThreads()
    monkeypatch.setattr(made.batcher, "_streams", threads)
    monkeypatch.setattr(made.batcher, "_computation", dies)
    made.batcher.start()
    async with asyncio.timeout(10):
        assert (await refused(made, [Text("a")])).reason == Reason.UNAVAILABLE
    assert made.given_up == [None]
    await made.batcher.aclose()


async def test_a_panic_of_the_model_is_its_callers_alone() -> None:
    class Panic(BaseException):
        """As Rust's come to Python."""

    def panic(_: object) -> None:
        raise Panic

    made = bench()
    made.batcher.start()
    made.model.during = panic
    assert (await refused(made, [Text("bad")])).reason == Reason.MODEL_FAILED
    made.model.during = None
    assert await made.ask([Text("good")]) == ["good"]
    await made.batcher.aclose()


async def test_one_success_between_failures_keeps_the_model_in() -> None:
    made = bench(Limits(max_failures=2))
    made.batcher.start()
    for _ in range(5):
        with pytest.raises(ServiceError):
            await made.ask([Text("bad", poisoned=True)])
        assert await made.ask([Text("good")]) == ["good"]
    assert made.health == []
    await made.batcher.aclose()


async def test_bad_inputs_in_a_row_leave_a_model_in_that_works() -> None:
    made = bench(Limits(max_failures=2))
    made.batcher.start()
    for _ in range(5):
        error = await refused(made, [Text("bad", poisoned=True)])
        assert error.reason == Reason.MODEL_FAILED
    assert await made.ask([Text("good")]) == ["good"]
    assert made.health == []
    await made.batcher.aclose()


async def test_a_failing_job_of_many_texts_counts_as_a_failure() -> None:
    made = bench(Limits(max_failures=2, probe_interval_s=0.001))
    made.batcher.start()
    made.model.broken = True
    for _ in range(2):
        error = await refused(made, [Text(n) for n in range(4)])
        assert error.reason == Reason.MODEL_FAILED
    await settled()
    assert made.health == [False]
    await made.batcher.aclose()
