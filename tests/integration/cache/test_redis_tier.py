"""The second tier against a real Redis: there, killed, hung, back, and full of rubbish."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from support.embedder import FINGERPRINT, CountingEmbedder, vector_of
from support.redis_server import RedisServer

from gateway.cache.entry import Entry
from gateway.cache.redis_tier import BREAK_AFTER, RedisTier
from gateway.cache.vectors import VectorCache, cache_key
from gateway.metrics import GatewayMetrics
from runtime.deadline import Deadline

TIMEOUT_S = 0.05
# Generous: the machine may be busy. Without the limits it would be seconds.
SOON_S = 1.0


@pytest.fixture
async def tier(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    tier = RedisTier(redis_server.url, timeout_s=TIMEOUT_S, ttl_s=100, connections=10)
    yield tier
    await tier.aclose()


def cache_over(tier: RedisTier, embedder: CountingEmbedder) -> VectorCache:
    """A gateway with an empty memory."""
    metrics = GatewayMetrics(CollectorRegistry())
    return VectorCache(embedder, size=100, redis=tier, budget_s=5, metrics=metrics)


def soon() -> Deadline:
    return Deadline.after(5)


async def written(tier: RedisTier, key: bytes) -> Entry:
    """The entry under `key`, once the write nobody waits for has happened."""
    give_up_s = time.monotonic() + 5
    while time.monotonic() < give_up_s:
        if (entry := (await tier.get_many([key]))[0]) is not None:
            return entry
    raise AssertionError("never written")


async def test_another_gateway_finds_what_one_has_embedded(tier: RedisTier) -> None:
    embedder = CountingEmbedder()
    assert not (
        await cache_over(tier, embedder).question("long one", FINGERPRINT, soon())
    ).cache_hit
    await written(tier, cache_key("long one", "query", FINGERPRINT))
    other = cache_over(tier, embedder)
    found = await other.question("long one", FINGERPRINT, soon())
    assert found.cache_hit
    assert found.cut
    assert np.array_equal(found.vector, vector_of("long one"))
    assert embedder.calls == [["long one"]]


async def test_entries_expire_at_about_the_time_given_not_all_at_once(
    tier: RedisTier, redis_server: RedisServer
) -> None:
    entries = {b"key-%d" % n: Entry(vector_of(str(n)), False) for n in range(50)}
    await tier.put_many(entries)
    async with Redis.from_url(redis_server.url) as redis:
        left_s = [await redis.ttl(key) for key in entries]
    assert all(85 <= left <= 111 for left in left_s)
    assert len(set(left_s)) > 3


async def test_passages_are_asked_for_in_one_go_and_only_the_missing_are_made(
    tier: RedisTier,
) -> None:
    embedder = CountingEmbedder()
    cache = cache_over(tier, embedder)

    async def embed(*texts: str) -> tuple[list[list[float]], frozenset[int]]:
        made = await cache.embed(
            texts, input_type="passage", lane="bulk", fingerprint=FINGERPRINT, deadline=soon()
        )
        return made.vectors.tolist(), made.truncated

    await embed("a", "long b")
    vectors, cut = await embed("c", "long b", "a")
    assert embedder.calls == [["a", "long b"], ["c"]]
    assert vectors == [vector_of(text).tolist() for text in ("c", "long b", "a")]
    assert cut == {1}


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"\x01\x01\x00\x00" + b"\0" * 60])
async def test_rubbish_in_redis_is_a_miss_and_is_replaced(
    tier: RedisTier, redis_server: RedisServer, rubbish: bytes
) -> None:
    key = cache_key("why", "query", FINGERPRINT)
    async with Redis.from_url(redis_server.url) as redis:
        await redis.set(key, rubbish)
    answer = await cache_over(tier, CountingEmbedder()).question("why", FINGERPRINT, soon())
    assert not answer.cache_hit
    assert np.array_equal(answer.vector, vector_of("why"))
    assert np.array_equal((await written(tier, key)).vector, vector_of("why"))


async def test_a_value_of_another_kind_is_a_miss(
    tier: RedisTier, redis_server: RedisServer
) -> None:
    key = cache_key("why", "query", FINGERPRINT)
    async with Redis.from_url(redis_server.url) as redis:
        await redis.rpush(key, "a", "b")
    answer = await cache_over(tier, CountingEmbedder()).question("why", FINGERPRINT, soon())
    assert np.array_equal(answer.vector, vector_of("why"))


async def test_redis_killed_costs_little_and_comes_back(
    tier: RedisTier, redis_server: RedisServer
) -> None:
    embedder = CountingEmbedder()
    cache = cache_over(tier, embedder)
    await cache.question("before", FINGERPRINT, soon())
    redis_server.kill()
    started_s = time.monotonic()
    for number in range(20):
        await cache.question(f"during {number}", FINGERPRINT, soon())
    assert time.monotonic() - started_s < SOON_S
    assert not await tier.ping()

    redis_server.start()
    key = cache_key("after", "query", FINGERPRINT)
    while not await tier.ping():
        continue
    await cache.question("after", FINGERPRINT, soon())
    await written(tier, key)


async def test_redis_hanging_costs_one_time_out_a_second_at_most(
    tier: RedisTier, redis_server: RedisServer
) -> None:
    cache = cache_over(tier, CountingEmbedder())
    await cache.question("before", FINGERPRINT, soon())
    redis_server.hang()
    try:
        started_s = time.monotonic()
        for number in range(BREAK_AFTER + 50):
            await cache.question(f"during {number}", FINGERPRINT, soon())
        # Writes fail beside the reads; 53 time-outs would take 2.6 s.
        assert time.monotonic() - started_s < SOON_S
    finally:
        redis_server.go_on()
    while not await tier.ping():
        continue
    # The answers that came too late must not be taken for those of later questions.
    await tier.put_many({b"one": Entry(vector_of("1"), False)})
    found = await tier.get_many([b"one", b"two"])
    assert found[0] is not None
    assert np.array_equal(found[0].vector, vector_of("1"))
    assert found[1] is None


async def test_no_redis_from_the_start_is_no_error(redis_server: RedisServer) -> None:
    redis_server.kill()
    tier = RedisTier(redis_server.url, timeout_s=TIMEOUT_S, ttl_s=100, connections=10)
    cache = cache_over(tier, CountingEmbedder())
    answer = await cache.question("why", FINGERPRINT, soon())
    assert np.array_equal(answer.vector, vector_of("why"))
    await cache.aclose()


async def test_a_hit_in_redis_takes_less_than_a_millisecond(tier: RedisTier) -> None:
    await tier.put_many({b"key": Entry(vector_of("x"), False)})
    best_s = float("inf")
    for _ in range(200):
        started_s = time.perf_counter()
        assert (await tier.get_many([b"key"]))[0] is not None
        best_s = min(best_s, time.perf_counter() - started_s)
    assert best_s < 1e-3
