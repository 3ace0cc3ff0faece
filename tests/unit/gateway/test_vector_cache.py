"""Memory tier, flights and the bytes of an entry."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from support.embedder import FINGERPRINT, CountingEmbedder, vector_of

from gateway.cache.entry import Entry, decode, encode
from gateway.cache.flights import Background, Flights
from gateway.cache.lru import Lru
from gateway.cache.vectors import VectorCache, cache_key
from gateway.metrics import GatewayMetrics
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def cache(embedder: CountingEmbedder, registry: CollectorRegistry) -> VectorCache:
    return VectorCache(embedder, size=2, redis=None, budget_s=5, metrics=GatewayMetrics(registry))


def soon() -> Deadline:
    return Deadline.after(5)


def test_lru_forgets_what_was_unused_for_longest() -> None:
    lru: Lru[str, int] = Lru(2)
    lru.put("a", 1)
    lru.put("b", 2)
    assert lru.get("a") == 1
    lru.put("c", 3)
    assert (lru.get("a"), lru.get("b"), lru.get("c")) == (1, None, 3)
    assert len(lru) == 2


def test_lru_of_size_none_keeps_nothing() -> None:
    lru: Lru[str, int] = Lru(0)
    lru.put("a", 1)
    assert lru.get("a") is None


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50),
    st.booleans(),
    st.binary(min_size=1, max_size=80),
)
def test_an_entry_survives_its_bytes(numbers: list[float], cut: bool, key: bytes) -> None:
    kept = decode(key, encode(key, Entry(np.array(numbers, np.float32), cut)))
    assert kept is not None
    assert kept.vector.tolist() == np.array(numbers, np.float32).tolist()
    assert kept.cut is cut


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_a_miss_or_changes_nothing(position: int, change: int) -> None:
    key, entry = b"key", Entry(vector_of("x"), False)
    value = bytearray(encode(key, entry))
    value[position % len(value)] ^= change
    kept = decode(key, bytes(value))
    # The one padding byte says nothing, so nothing hangs on it.
    assert kept is None or np.array_equal(kept.vector, entry.vector)


@pytest.mark.parametrize("value", [None, b"", b"x", b"\0" * 100])
def test_what_is_no_entry_is_a_miss(value: bytes | None) -> None:
    assert decode(b"key", value) is None


def test_an_entry_under_anothers_key_is_a_miss() -> None:
    value = encode(b"one", Entry(vector_of("x"), False))
    assert decode(b"one", value) is not None
    assert decode(b"two", value) is None
    assert decode(b"one", value[:-4]) is None
    assert decode(b"one", value + b"\0") is None


def test_keys_differ_by_model_use_and_text() -> None:
    keys = {
        cache_key("a", "query", "m1"),
        cache_key("a", "query", "m2"),
        cache_key("a", "passage", "m1"),
        cache_key("b", "query", "m1"),
    }
    assert len(keys) == 4


async def test_the_second_question_is_a_hit(
    cache: VectorCache, embedder: CountingEmbedder, registry: CollectorRegistry
) -> None:
    first = await cache.question("why", FINGERPRINT, soon())
    second = await cache.question("why", FINGERPRINT, soon())
    assert (first.cache_hit, second.cache_hit) == (False, True)
    assert np.array_equal(first.vector, second.vector)
    assert np.array_equal(first.vector, vector_of("why"))
    assert embedder.calls == [["why"]]
    assert registry.get_sample_value("rag_cache_hits_total", {"tier": "memory"}) == 1
    assert registry.get_sample_value("rag_cache_misses_total") == 1


async def test_another_model_is_another_vector(
    cache: VectorCache, embedder: CountingEmbedder
) -> None:
    await cache.question("why", FINGERPRINT, soon())
    await cache.question("why", "another", soon())
    assert len(embedder.calls) == 2


async def test_that_a_question_was_cut_is_remembered(cache: VectorCache) -> None:
    assert (await cache.question("long", FINGERPRINT, soon())).cut
    again = await cache.question("long", FINGERPRINT, soon())
    assert again.cut
    assert again.cache_hit


async def test_a_failure_is_not_kept(cache: VectorCache, embedder: CountingEmbedder) -> None:
    embedder.error = ServiceError(Reason.EMBEDDER_UNAVAILABLE, "gone")
    with pytest.raises(ServiceError):
        await cache.question("why", FINGERPRINT, soon())
    embedder.error = None
    assert not (await cache.question("why", FINGERPRINT, soon())).cache_hit


async def test_many_askers_are_one_flight(cache: VectorCache, embedder: CountingEmbedder) -> None:
    embedder.gate.clear()
    asking = [asyncio.create_task(cache.question("why", FINGERPRINT, soon())) for _ in range(20)]
    await asyncio.sleep(0)
    embedder.gate.set()
    answers = await asyncio.gather(*asking)
    assert embedder.calls == [["why"]]
    assert all(np.array_equal(answer.vector, vector_of("why")) for answer in answers)


async def test_the_flight_ends_when_the_last_waiter_leaves(
    cache: VectorCache, embedder: CountingEmbedder
) -> None:
    embedder.gate.clear()
    one = asyncio.create_task(cache.question("why", FINGERPRINT, soon()))
    two = asyncio.create_task(cache.question("why", FINGERPRINT, soon()))
    while not embedder.calls:
        await asyncio.sleep(0)
    one.cancel()
    await asyncio.wait([one])
    assert embedder.cancelled == 0
    two.cancel()
    await asyncio.wait([two])
    await asyncio.sleep(0)
    assert embedder.cancelled == 1
    embedder.gate.set()
    assert not (await cache.question("why", FINGERPRINT, soon())).cache_hit


async def test_a_waiter_leaves_by_its_own_deadline_and_the_flight_goes_on(
    cache: VectorCache, embedder: CountingEmbedder
) -> None:
    embedder.gate.clear()
    patient = asyncio.create_task(cache.question("why", FINGERPRINT, soon()))
    with pytest.raises(ServiceError) as caught:
        await cache.question("why", FINGERPRINT, Deadline.after(0.1))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    embedder.gate.set()
    assert not (await patient).cache_hit
    assert embedder.calls == [["why"]]


async def test_a_failed_flight_fails_all_its_waiters_and_none_after() -> None:
    flights: Flights[str, int] = Flights(5)

    async def fail(budget: Deadline) -> int:
        await asyncio.sleep(0)
        raise ServiceError(Reason.MODEL_FAILED, "no")

    async def succeed(budget: Deadline) -> int:
        return 7

    failed = await asyncio.gather(
        flights.join("k", fail, soon()), flights.join("k", fail, soon()), return_exceptions=True
    )
    assert [type(error) for error in failed] == [ServiceError, ServiceError]
    assert await flights.join("k", succeed, soon()) == 7
    assert len(flights) == 0


async def test_background_work_is_bounded() -> None:
    gate = asyncio.Event()

    async def work() -> None:
        await gate.wait()

    background = Background(2)
    assert background.run(work)
    assert background.run(work)
    assert not background.run(work)
    gate.set()
    await background.aclose()
    assert background.run(work)
    await background.aclose()


async def test_a_hit_in_memory_takes_microseconds(cache: VectorCache) -> None:
    text = "How does Rust ensure memory safety?"
    await cache.question(text, FINGERPRINT, soon())
    best_s = float("inf")
    for _ in range(20):
        deadline = soon()
        started_s = time.perf_counter()
        for _ in range(200):
            await cache.question(text, FINGERPRINT, deadline)
        best_s = min(best_s, (time.perf_counter() - started_s) / 200)
    assert best_s < 20e-6
