"""Whatever is submitted, cancelled or poisoned: each caller gets exactly its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from support.batching import Bench, FakeModel, Text, bench

from encoders.lanes import Lane
from encoders.limits import Limits
from runtime.errors import Reason, ServiceError

# The model's time for one token of the fake clock.
TOKEN_S = 0.001


@dataclass(frozen=True)
class Call:
    """One caller: what it submits, after how many turns of the loop, and when it leaves."""

    lane: Lane
    lengths: tuple[int, ...]
    after: int
    remaining_s: float | None
    leaves_after: int | None
    poisoned: int | None


calls = st.builds(
    Call,
    lane=st.sampled_from(["interactive", "bulk"]),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8).map(tuple),
    after=st.integers(0, 60),
    remaining_s=st.none() | st.floats(0.0, 0.5),
    # From before it is queued, over prepared and running, to after it was answered.
    leaves_after=st.none() | st.integers(0, 60),
    poisoned=st.none() | st.integers(0, 30),
)
streams = st.integers(1, 3)
limits = st.builds(
    Limits,
    queue_tokens=st.integers(50, 1000),
    batch_tokens=st.integers(1, 200),
    batch_items=st.integers(1, 8),
    window_items=st.integers(1, 16),
    bulk_share=st.floats(0.05, 0.9),
    bulk_quantum_s=st.floats(0.001, 0.05),
    max_failures=st.just(1000),
)

Outcome = list[object] | Reason | Literal["left"]


async def run_call(made: Bench, number: int, call: Call) -> Outcome:
    for _ in range(call.after):
        await asyncio.sleep(0)
    texts = [
        Text((number, index), tokens, poisoned=index == call.poisoned)
        for index, tokens in enumerate(call.lengths)
    ]
    asked = made.ask(texts, lane=call.lane, remaining_s=call.remaining_s)
    if call.leaves_after is not None:
        for _ in range(call.leaves_after):
            await asyncio.sleep(0)
        asked.cancel()
    try:
        return await asked
    except asyncio.CancelledError:
        return "left"
    except ServiceError as error:
        return error.reason


async def play(bounds: Limits, script: list[Call], count: int) -> tuple[Bench, list[Outcome]]:
    model = FakeModel(seconds_per_token=TOKEN_S)
    made = bench(bounds, model, streams=count, tokens_per_s=1 / TOKEN_S)
    made.batcher.start()
    running = [run_call(made, number, call) for number, call in enumerate(script)]
    async with asyncio.timeout(20):  # a caller that gets no answer fails the test
        outcomes = await asyncio.gather(*running)
    await made.batcher.aclose()
    return made, outcomes


@settings(deadline=None, max_examples=150)
@given(limits, st.lists(calls, min_size=1, max_size=12), streams)
def test_every_caller_gets_its_own_answer_once(
    bounds: Limits, script: list[Call], count: int
) -> None:
    made, outcomes = asyncio.run(play(bounds, script, count))
    assert 1 <= made.streams.most_at_once <= count or not made.model.batches
    succeeded = [batch for batch in made.model.batches if not any(t.poisoned for t in batch)]
    computed = [text.name for batch in succeeded for text in batch]
    assert len(computed) == len(set(computed)), "a text was computed twice"
    for number, (call, outcome) in enumerate(zip(script, outcomes, strict=True)):
        own = [(number, index) for index in range(len(call.lengths))]
        if isinstance(outcome, list):
            assert outcome == own
            assert set(own) <= set(computed)
        elif outcome == Reason.MODEL_FAILED:
            assert call.poisoned is not None
            assert call.poisoned < len(own)
        elif outcome in (Reason.DEADLINE_EXCEEDED, Reason.QUEUE_FULL):
            assert outcome == Reason.QUEUE_FULL or call.remaining_s is not None
        else:
            assert outcome == "left"
            assert call.leaves_after is not None
    for lane in ("interactive", "bulk"):
        assert made.sample("rag_queue_tokens", lane=lane) == 0


@settings(deadline=None, max_examples=100)
@given(limits, st.lists(calls, min_size=1, max_size=12), streams)
def test_no_batch_exceeds_its_budget(bounds: Limits, script: list[Call], count: int) -> None:
    made, _ = asyncio.run(play(bounds, script, count))
    for batch in made.model.batches:
        padded = len(batch) * max(text.tokens for text in batch)
        assert padded <= bounds.batch_tokens or len(batch) == 1
        assert len(batch) <= bounds.batch_items
        number, _ = batch[0].name
        if script[number].lane == "bulk" and len(batch) > 1:
            assert padded * TOKEN_S <= bounds.bulk_quantum_s + TOKEN_S / 2 + 1e-9


@settings(deadline=None, max_examples=100)
@given(limits, st.lists(calls, min_size=1, max_size=12), streams)
def test_the_queue_stays_bounded(bounds: Limits, script: list[Call], count: int) -> None:
    seen: list[float] = []
    largest = max(sum(call.lengths) for call in script)

    async def watched() -> None:
        made = bench(bounds, FakeModel(seconds_per_token=TOKEN_S), streams=count)
        made.model.during = lambda _: seen.append(
            sum(made.sample("rag_queue_tokens", lane=lane) for lane in ("interactive", "bulk"))
        )
        made.batcher.start()
        running = [run_call(made, number, call) for number, call in enumerate(script)]
        async with asyncio.timeout(20):
            await asyncio.gather(*running)
        await made.batcher.aclose()

    asyncio.run(watched())
    assert max(seen, default=0) <= max(bounds.queue_tokens, largest)


@settings(deadline=None, max_examples=60)
@given(
    bounds=limits,
    lane=st.sampled_from(["interactive", "bulk"]),
    rivals=st.integers(20, 120),
    tokens=st.integers(1, 60),
    count=streams,
)
def test_nobody_starves_in_either_lane(
    bounds: Limits, lane: Lane, rivals: int, tokens: int, count: int
) -> None:
    """However many come later in the other lane, one waits a bounded number of batches."""
    bounds = replace(bounds, queue_tokens=100_000, bulk_queue_share=1.0, batch_items=1)
    other: Lane = "bulk" if lane == "interactive" else "interactive"

    async def play() -> list[object]:
        made = bench(bounds, FakeModel(seconds_per_token=TOKEN_S), streams=count)
        waiting = [made.ask([Text("rival", 10)], lane=other) for _ in range(rivals)]
        waiting.append(made.ask([Text("one", tokens)], lane=lane))
        await asyncio.sleep(0)
        made.batcher.start()
        async with asyncio.timeout(20):
            await asyncio.gather(*waiting)
        await made.batcher.aclose()
        return [text.name for batch in made.model.batches for text in batch]

    position = asyncio.run(play()).index("one")
    if lane == "interactive":
        assert position <= 1
    else:
        # Each rival takes 10 ms and earns bulk its share; one quantum is due before a turn.
        earned_s = 10 * TOKEN_S * bounds.bulk_share / (1 - bounds.bulk_share)
        # What is owed is known when a batch ends: each stream may have one more on its way.
        assert position <= bounds.bulk_quantum_s / earned_s + 2 * count


@settings(deadline=None, max_examples=80)
@given(limits, st.lists(calls, min_size=1, max_size=12), streams, st.data())
def test_a_model_that_breaks_is_probed_alone_and_everyone_is_answered(
    bounds: Limits, script: list[Call], count: int, data: st.DataObject
) -> None:
    """It breaks and works again at any time; the probe finds no batch beside it."""
    breaks_after = data.draw(st.integers(0, 5))
    bounds = replace(bounds, max_failures=data.draw(st.integers(1, 3)), probe_interval_s=0.0)

    class Breaking(FakeModel):
        def run(self, batch: Sequence[Text]) -> list[object]:
            self.broken = self.probes == 0 and len(self.batches) >= breaks_after
            return super().run(batch)

        def probe(self) -> None:
            beside.append(made.streams.running)
            super().probe()
            self.broken = False

    beside: list[int] = []
    made: Bench

    async def watched() -> list[Outcome]:
        nonlocal made
        made = bench(bounds, Breaking(seconds_per_token=TOKEN_S), streams=count)
        made.batcher.start()
        running = [run_call(made, number, call) for number, call in enumerate(script)]
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*running)
        await made.batcher.aclose()
        return outcomes

    for number, outcome in enumerate(asyncio.run(watched())):
        if isinstance(outcome, list):
            assert outcome == [(number, index) for index in range(len(script[number].lengths))]
    assert beside == [0] * len(beside)


@settings(deadline=None, max_examples=60)
@given(streams, st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_no_stream_is_idle_while_something_waits(count: int, lengths: list[int]) -> None:
    """All streams together are as fast as they can be, up to one batch of each at the end."""

    async def play() -> float:
        made = bench(Limits(batch_tokens=60), FakeModel(seconds_per_token=TOKEN_S), streams=count)
        made.batcher.start()
        await asyncio.gather(*(made.ask([Text(n, size)]) for n, size in enumerate(lengths)))
        await made.batcher.aclose()
        padded = [len(batch) * max(t.tokens for t in batch) for batch in made.model.batches]
        assert made.model.now_s <= (sum(padded) / count + max(padded)) * TOKEN_S + 1e-9
        return made.model.now_s

    assert asyncio.run(play()) > 0
