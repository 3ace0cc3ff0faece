"""Texts of many documents in common calls: order, fullness, failures, departures."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from support.embedder import CountingEmbedder, vector_of

from gateway.batches import EMBED_CALLS, Batches
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError


def soon() -> Deadline:
    return Deadline.after(10)


async def test_vectors_come_back_to_those_who_asked_and_calls_are_full() -> None:
    embedder = CountingEmbedder()
    batches = Batches(embedder, 8)
    asked = [[f"{name}{n}" for n in range(3)] for name in "abcdefgh"]
    made = await asyncio.gather(*(batches.embed(texts, "f", soon()) for texts in asked))
    for texts, vectors in zip(asked, made, strict=True):
        assert [(np.frombuffer(v, "<f4")).tolist() for v, _ in vectors] == [
            vector_of(text).tolist() for text in texts
        ]
    assert sum(map(len, embedder.calls)) == 24
    assert len(embedder.calls) <= 4
    assert await batches.embed([], "f", soon()) == []


async def test_texts_of_two_models_are_never_in_one_call() -> None:
    embedder = CountingEmbedder()
    batches = Batches(embedder, 8)
    await asyncio.gather(batches.embed(["a"], "one", soon()), batches.embed(["b"], "two", soon()))
    assert sorted(embedder.calls) == [["a"], ["b"]]


async def test_calls_at_once_are_bounded() -> None:
    embedder = CountingEmbedder()
    embedder.gate.clear()
    batches = Batches(embedder, 2)
    embedding = asyncio.create_task(batches.embed([str(n) for n in range(40)], "f", soon()))
    while len(embedder.calls) < EMBED_CALLS:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(embedder.calls) == EMBED_CALLS
    embedder.gate.set()
    assert len(await embedding) == 40


async def test_a_failure_is_told_to_those_of_its_call_and_the_next_goes_on() -> None:
    embedder = CountingEmbedder()
    batches = Batches(embedder, 4)
    embedder.error = TypeError("nobody foresaw this")
    with pytest.raises(TypeError, match="nobody foresaw"):
        await batches.embed(["a", "b"], "f", soon())
    embedder.error = None
    assert len(await batches.embed(["a", "b"], "f", soon())) == 2


async def test_a_call_goes_on_while_anybody_waits_for_it_and_no_longer() -> None:
    embedder = CountingEmbedder()
    embedder.gate.clear()
    batches = Batches(embedder, 4)
    first, second = (asyncio.create_task(batches.embed([text], "f", soon())) for text in ("a", "b"))
    while not embedder.calls:
        await asyncio.sleep(0)
    assert embedder.calls == [["a", "b"]]
    first.cancel()
    await asyncio.wait([first])
    assert embedder.cancelled == 0
    second.cancel()
    await asyncio.wait([second])
    await batches.aclose()
    assert embedder.cancelled == 1


@pytest.mark.parametrize("turns", range(6))
async def test_a_text_that_comes_as_the_last_call_ends_gets_one_of_its_own(turns: int) -> None:
    """In whichever turn of the loop: one that counts on a call that has ended waits for ever."""
    embedder = CountingEmbedder()
    batches = Batches(embedder, 8)
    embedder.gate.clear()
    first = asyncio.create_task(batches.embed(["a"], "f", soon()))
    while not embedder.calls:
        await asyncio.sleep(0)
    embedder.gate.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert len(await batches.embed(["b"], "f", soon())) == 1
    await first


async def test_a_text_waits_no_longer_than_it_has_time() -> None:
    embedder = CountingEmbedder()
    embedder.gate.clear()
    batches = Batches(embedder, 8)
    with pytest.raises(ServiceError) as caught:
        await batches.embed(["a"], "f", Deadline.after(0.1))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    await batches.aclose()
    assert embedder.cancelled == 1
