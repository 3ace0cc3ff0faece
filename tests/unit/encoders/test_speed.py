"""The measured capacity: what batches tell of it, full ones and empty ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.batching import FakeModel, Text, bench

from encoders.admission import Demand, Load, Speed, wait_s
from encoders.limits import Limits

# A GPU: 1.5 ms to start a batch, then a million tokens a second.
FIXED_S = 0.0015
TOKEN_S = 1e-6
LIMITS = Limits.of_batches(65_536)


def test_lone_questions_leave_the_capacity_that_of_full_batches() -> None:
    speed = Speed(2, 1e6)
    for _ in range(10_000):
        speed.observe(16, FIXED_S + 16 * TOKEN_S, 16 / 65_536)
    assert speed.tokens_per_s == pytest.approx(2e6)


def test_one_that_was_not_measured_beforehand_is_told_by_any_batch_until_a_full_one_comes() -> None:
    speed = Speed(1)
    speed.observe(16, 0.01, 0.01)
    assert speed.tokens_per_s == pytest.approx(1600)
    for _ in range(400):
        speed.observe(1000, 0.01, 1.0)
    assert speed.tokens_per_s == pytest.approx(100_000, rel=0.01)


async def test_lone_questions_do_not_change_what_the_batcher_measured() -> None:
    made = bench(LIMITS, FakeModel(TOKEN_S, seconds_per_batch=FIXED_S))
    made.batcher.start()
    await made.ask([Text(n, 128) for n in range(512)])
    full = made.sample("rag_tokens_per_second")
    assert full == pytest.approx(65_536 / (FIXED_S + 65_536 * TOKEN_S))
    for n in range(300):
        await made.ask([Text(n, 16)])
    assert made.sample("rag_tokens_per_second") == pytest.approx(full)
    await made.batcher.aclose()


async def test_a_queue_of_all_lengths_tells_the_capacity_though_no_batch_is_full() -> None:
    """Rows that are alike are few, so that each batch holds a few thousand tokens."""
    made = bench(
        replace(LIMITS, queue_tokens=10_000_000), FakeModel(TOKEN_S, seconds_per_batch=4 * FIXED_S)
    )
    made.batcher.start()
    await made.ask([Text(n, 128) for n in range(512)])
    lengths = [round(8 * 1.0085**n) for n in range(500)] * 2

    async def calls() -> None:
        texts = [Text(n, size) for n, size in enumerate(lengths)]
        await asyncio.gather(*(made.ask(texts) for _ in range(8)))

    for _ in range(6):
        await calls()
    waited, started_s = len(made.model.batches), made.model.now_s
    await calls()
    computed = made.model.batches[waited:]
    padded = sum(len(batch) * max(text.tokens for text in batch) for batch in computed)
    assert padded / len(computed) < LIMITS.batch_tokens / 4
    assert made.sample("rag_tokens_per_second") == pytest.approx(
        padded / (made.model.now_s - started_s), rel=0.2
    )
    await made.batcher.aclose()


async def test_a_queue_full_of_questions_is_estimated_by_batches_of_questions() -> None:
    """They fill the rows of a batch, and an eighth of its tokens."""
    made = bench(LIMITS, FakeModel(TOKEN_S, seconds_per_batch=4 * FIXED_S))
    made.batcher.start()
    await made.ask([Text(n, 128) for n in range(512)])
    for _ in range(40):
        await asyncio.gather(*(made.ask([Text(n, 16) for n in range(1024)]) for _ in range(4)))
    started_s = made.model.now_s
    estimate_s = wait_s(
        LIMITS, Load(7 * 16_384, 0, 0), made.batcher._speed, "interactive", Demand(16_384, 16)
    )
    await asyncio.gather(*(made.ask([Text(n, 16) for n in range(1024)]) for _ in range(8)))
    assert estimate_s == pytest.approx(made.model.now_s - started_s, rel=0.2)
    await made.batcher.aclose()
