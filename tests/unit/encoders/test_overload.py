"""More calls than the model can serve: those that are let in are answered in time."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from functools import partial

import pytest
from support.batching import Bench, FakeModel, Text, bench

from encoders.limits import Limits
from runtime.errors import Reason, ServiceError

STREAMS = 2
# Of one stream, and what a call holds: such as a paragraph.
TOKENS_PER_S = 7500
MEAN_TOKENS = 105
CAPACITY_PER_S = STREAMS * TOKENS_PER_S / MEAN_TOKENS
DURATION_S = 6.0
DEADLINE_S = 0.5


@dataclass
class Tally:
    """How calls ended, as their callers see it."""

    good: int = 0
    late: int = 0
    refused: int = 0
    retry_after_s: list[float] = field(default_factory=list)


async def call(made: Bench, tally: Tally, tokens: int) -> None:
    arrived_s = made.model.now_s
    try:
        await made.batcher.submit(
            [Text(None, tokens)], [tokens], lane="interactive", remaining_s=DEADLINE_S
        )
    except ServiceError as error:
        if error.reason != Reason.QUEUE_FULL:
            tally.late += 1
            return
        tally.refused += 1
        tally.retry_after_s.append(error.retry_after_s or 0.0)
        return
    if made.model.now_s - arrived_s <= DEADLINE_S:
        tally.good += 1
    else:
        tally.late += 1


async def offered(load: float) -> Tally:
    """What becomes of calls that arrive at random, `load` times the capacity."""
    rng = random.Random(7)
    model = FakeModel(seconds_per_token=1 / TOKENS_PER_S)
    made = bench(Limits.of_batches(256), model, streams=STREAMS)
    tally = Tally()
    calls: list[asyncio.Task[None]] = []

    def arrives(tokens: int) -> None:
        calls.append(asyncio.create_task(call(made, tally, tokens)))

    ended = asyncio.Event()
    when_s = 0.0
    while when_s < DURATION_S:
        when_s += rng.expovariate(CAPACITY_PER_S * load)
        tokens = max(5, min(250, round(rng.gauss(MEAN_TOKENS, 50))))
        made.streams.at(when_s, partial(arrives, tokens))
    made.streams.at(when_s + 2 * DEADLINE_S, ended.set)
    made.batcher.start()
    async with asyncio.timeout(60):
        await ended.wait()
        await asyncio.gather(*calls)
    await made.batcher.aclose()
    return tally


@pytest.mark.parametrize("load", [1.5, 3.0])
async def test_goodput_stays_at_its_peak(load: float) -> None:
    peak = await offered(0.9)
    over = await offered(load)
    assert peak.refused + peak.late <= 0.03 * peak.good
    assert over.good >= 0.95 * peak.good
    assert over.refused > 0
    # Who is let in is served: time spent on late answers is taken from those in time.
    assert over.late <= 0.02 * over.good
    assert all(0.05 <= seconds <= DEADLINE_S for seconds in over.retry_after_s)
