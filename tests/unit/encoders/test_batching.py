"""The batcher, with a clock and a model that the tests control."""

from __future__ import annotations

import asyncio

import pytest
from support.batching import Bench, FakeModel, Text, bench

from encoders.lanes import Lane
from encoders.limits import Limits
from runtime.errors import Reason, ServiceError


async def settled() -> None:
    """Lets every task that can go on do so: each await of the batcher takes a turn or two."""
    for _ in range(200):
        await asyncio.sleep(0)


async def refused(made: Bench, texts: list[Text], lane: Lane, **options: float) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await made.batcher.submit(texts, [text.tokens for text in texts], lane=lane, **options)
    return caught.value


async def test_answers_come_in_the_order_of_the_request() -> None:
    made = bench()
    made.batcher.start()
    texts = [Text(name, tokens) for name, tokens in (("a", 90), ("b", 3), ("c", 40), ("d", 4))]
    assert await made.ask(texts) == ["a", "b", "c", "d"]
    await made.batcher.aclose()


async def test_nothing_is_asked_of_the_model_for_no_text() -> None:
    made = bench()
    assert await made.ask([]) == []
    assert made.model.batches == []


async def test_what_waits_is_computed_together() -> None:
    made = bench()
    asked = [made.ask([Text(n)]) for n in range(10)]
    await settled()
    made.batcher.start()
    assert await asyncio.gather(*asked) == [[n] for n in range(10)]
    assert len(made.model.batches) == 1
    await made.batcher.aclose()


async def test_interactive_work_goes_first() -> None:
    made = bench(Limits(batch_items=1))
    bulk = made.ask([Text("bulk")], lane="bulk")
    await settled()
    interactive = made.ask([Text("person")])
    await settled()
    made.batcher.start()
    await asyncio.gather(bulk, interactive)
    assert [text.name for batch in made.model.batches for text in batch] == ["person", "bulk"]
    await made.batcher.aclose()


async def test_bulk_keeps_its_share_of_the_time_under_interactive_load() -> None:
    limits = Limits(batch_items=1, bulk_share=0.25, bulk_quantum_s=0.01)
    made = bench(limits, FakeModel(seconds_per_token=0.001))
    waiting = [made.ask([Text("bulk", 10)], lane="bulk") for _ in range(400)]
    waiting += [made.ask([Text("person", 10)]) for _ in range(400)]
    await settled()
    made.batcher.start()
    await asyncio.wait(waiting, return_when=asyncio.ALL_COMPLETED)
    order = [batch[0].name for batch in made.model.batches]
    # While both lanes wait, every fourth unit of time is bulk's; after that, bulk alone.
    both = order[: max(index for index, name in enumerate(order) if name == "person")]
    assert both.count("bulk") / len(both) == pytest.approx(0.25, abs=0.02)
    await made.batcher.aclose()


async def test_a_bulk_batch_is_sized_by_time() -> None:
    made = bench(
        Limits(batch_tokens=10_000, batch_items=1000, bulk_quantum_s=0.015),
        FakeModel(seconds_per_token=0.001),
    )
    made.batcher.start()
    await made.ask([Text("measure", 10)])
    await made.ask([Text(n, 5) for n in range(30)], lane="bulk")
    assert [len(batch) for batch in made.model.batches[1:]] == [3] * 10  # 15 tokens, 15 ms
    await made.batcher.aclose()


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    made = bench(Limits(queue_tokens=100), FakeModel(seconds_per_token=0.01))
    made.batcher.start()
    await made.ask([Text("measure", 10)])
    waiting = [made.ask([Text(n, 50)]) for n in range(2)]
    await asyncio.sleep(0)
    error = await refused(made, [Text("late", 30)], "interactive")
    assert error.reason == Reason.QUEUE_FULL
    # 100 tokens wait, 30 too many: half of the second they take, spread by a quarter.
    assert 0.375 <= (error.retry_after_s or 0.0) <= 0.625
    assert "100 of 100 tokens wait" in error.message
    assert made.sample("rag_requests_shed_total", cause="queue_full") == 1
    assert await asyncio.gather(*waiting) == [[0], [1]]
    await made.batcher.aclose()


async def test_bulk_never_locks_interactive_callers_out() -> None:
    made = bench(Limits(queue_tokens=100, bulk_queue_share=0.5))
    bulk = made.ask([Text("bulk", 50)], lane="bulk")
    await settled()
    assert (await refused(made, [Text("more", 10)], "bulk")).reason == Reason.QUEUE_FULL
    person = made.ask([Text("person", 50)])
    await settled()
    made.batcher.start()
    assert await asyncio.gather(bulk, person) == [["bulk"], ["person"]]
    await made.batcher.aclose()


async def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    made = bench(Limits(queue_tokens=100))
    made.batcher.start()
    assert await made.ask([Text("huge", 500)], lane="bulk") == ["huge"]
    await made.batcher.aclose()


async def test_what_is_hopeless_is_refused_by_an_idle_model_too() -> None:
    made = bench(model=FakeModel(seconds_per_token=0.01))
    made.batcher.start()
    await made.ask([Text("measure", 10)])
    error = await refused(made, [Text("huge", 450)], "interactive", remaining_s=1.0)
    assert error.reason == Reason.DEADLINE_EXCEEDED
    assert "needs about 4.5 s" in error.message
    assert made.sample("rag_requests_shed_total", cause="too_late") == 1
    await made.batcher.aclose()


async def test_what_cannot_be_done_in_time_is_refused_at_the_door() -> None:
    made = bench(model=FakeModel(seconds_per_token=0.01))
    made.batcher.start()
    await made.ask([Text("measure", 10)])
    ahead = made.ask([Text("ahead", 100)])
    await asyncio.sleep(0)
    error = await refused(made, [Text("late", 50)], "interactive", remaining_s=1.2)
    assert error.reason == Reason.QUEUE_FULL
    # 150 tokens take 1.5 s, and 0.6 of its time may be planned for: 0.78 s too many.
    assert 0.78 * 0.75 <= (error.retry_after_s or 0.0) <= 0.78 * 1.25
    assert "it would take 1.5 s, and 1.2 s are left" in error.message
    patient = made.ask([Text("patient", 50)], remaining_s=2.6)
    assert await asyncio.gather(ahead, patient) == [["ahead"], ["patient"]]
    await made.batcher.aclose()


async def test_no_time_left_is_said_at_once() -> None:
    made = bench()
    error = await refused(made, [Text("late")], "interactive", remaining_s=0.0)
    assert error.reason == Reason.DEADLINE_EXCEEDED
    assert made.model.batches == []


async def test_what_expired_while_it_waited_is_not_computed() -> None:
    made = bench(Limits(batch_items=1), FakeModel(seconds_per_token=1.0))
    slow = made.ask([Text("slow", 10)])
    late = made.ask([Text("late", 1)], remaining_s=5.0)
    await settled()
    made.batcher.start()
    assert await slow == ["slow"]
    with pytest.raises(ServiceError) as caught:
        await late
    assert caught.value.reason == Reason.DEADLINE_EXCEEDED
    assert [text.name for batch in made.model.batches for text in batch] == ["slow"]
    assert made.sample("rag_requests_shed_total", cause="expired") == 1
    await made.batcher.aclose()


async def test_what_expired_takes_no_room_in_a_batch() -> None:
    made = bench(Limits(batch_items=2), FakeModel(seconds_per_token=1.0))
    # Two run and two are prepared when the time of the next one is up.
    asked = [made.ask([Text(name, 10)]) for name in ("one", "two", "three", "four")]
    asked.append(made.ask([Text("late", 10)], remaining_s=5.0))
    asked += [made.ask([Text(name, 10)]) for name in ("five", "six")]
    await settled()
    made.batcher.start()
    await asyncio.gather(*asked, return_exceptions=True)
    names = [[text.name for text in batch] for batch in made.model.batches]
    assert names == [["one", "two"], ["three", "four"], ["five", "six"]]
    await made.batcher.aclose()


async def test_who_leaves_while_a_bad_batch_is_halved_is_not_computed_again() -> None:
    made = bench()
    asked = [made.ask([Text(n, poisoned=n == 0)]) for n in range(4)]
    await settled()
    made.model.during = lambda _: asked[3].cancel()
    made.batcher.start()
    await asyncio.gather(*asked, return_exceptions=True)
    names = [[text.name for text in batch] for batch in made.model.batches]
    # The second half was prepared when the first one failed.
    assert names == [[0, 1, 2, 3], [0, 1], [2], [0], [1]]
    await made.batcher.aclose()


async def test_what_was_cancelled_while_it_waited_is_not_computed() -> None:
    made = bench()
    left = made.ask([Text("left", 7)])
    stays = made.ask([Text("stays", 3)])
    await settled()
    assert made.sample("rag_queue_tokens", lane="interactive") == 10
    left.cancel()
    await settled()
    assert made.sample("rag_queue_tokens", lane="interactive") == 3
    made.batcher.start()
    assert await stays == ["stays"]
    assert [text.name for batch in made.model.batches for text in batch] == ["stays"]
    await made.batcher.aclose()


async def test_deadlines_of_answered_calls_are_forgotten() -> None:
    made = bench()
    made.batcher.start()
    for _ in range(30):
        await asyncio.gather(*(made.ask([Text(n)], remaining_s=3600.0) for n in range(100)))
    assert len(made.batcher._waiting._deadlines) <= 1000 + 2 * 100
    await made.batcher.aclose()


async def test_closing_answers_everything_that_waits() -> None:
    made = bench()
    waiting = [made.ask([Text(n)], lane=lane) for n in range(3) for lane in ("bulk", "interactive")]
    await settled()
    await made.batcher.aclose()
    for answer in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(answer, ServiceError)
        assert answer.reason == Reason.DRAINING
    assert (await refused(made, [Text("a")], "bulk")).reason == Reason.DRAINING


async def test_every_series_exists_from_the_first_scrape() -> None:
    made = bench()
    for lane in ("interactive", "bulk"):
        for name in ("rag_queue_tokens", "rag_queue_oldest_age_seconds", "rag_batch_items_total"):
            assert made.sample(name, lane=lane) == 0
        for name in ("rag_batch_fill_ratio_count", "rag_batch_duration_seconds_count"):
            assert made.sample(name, lane=lane) == 0
    for kind in ("text", "padding"):
        assert made.sample("rag_tokens_total", kind=kind) == 0
    for cause in ("queue_full", "too_late", "expired", "cancelled", "unhealthy"):
        assert made.sample("rag_requests_shed_total", cause=cause) == 0
    assert made.sample("rag_tokens_per_second") == 0
    assert made.sample("rag_batch_failures_total") == 0


async def test_metrics_tell_padding_age_and_speed() -> None:
    made = bench(model=FakeModel(seconds_per_token=0.01))
    asked = made.ask([Text("a", 10), Text("b", 6)])
    await settled()
    made.model.now_s += 2.0
    assert made.sample("rag_queue_oldest_age_seconds", lane="interactive") == 2.0
    made.batcher.start()
    await asked
    assert made.sample("rag_tokens_total", kind="text") == 16
    assert made.sample("rag_tokens_total", kind="padding") == 4
    assert made.sample("rag_tokens_per_second") == pytest.approx(100)
    assert made.sample("rag_queue_oldest_age_seconds", lane="interactive") == 0
    await made.batcher.aclose()
