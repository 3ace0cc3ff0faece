"""Two embedders over real gRPC: each call reaches the one that holds the model it needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from rag.embedder.v1 import embedder_pb2
from support import workers
from support.workers import Script, channel_to

from gateway import embedders as module
from gateway.clients import EMBEDDER_SERVICE, EmbedderClient, Embeddings
from gateway.embedders import Embedders
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64


@dataclass
class Pair:
    """Two workers, their servers, and the clients joined over them."""

    old: Script
    new: Script
    old_server: AsyncExitStack
    new_server: AsyncExitStack
    embedders: Embedders


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    old, new = Script(fingerprint=OLD), Script(fingerprint=NEW)
    async with AsyncExitStack() as rest, AsyncExitStack() as one, AsyncExitStack() as other:
        clients = []
        for server, script in ((one, old), (other, new)):
            target = await server.enter_async_context(workers.embedder(script))
            channel = await rest.enter_async_context(channel_to(target, EMBEDDER_SERVICE))
            clients.append(EmbedderClient(channel))
        yield Pair(old, new, one, other, Embedders(*clients))


def soon() -> Deadline:
    return Deadline.after(10)


async def embed(embedders: Embedders, fingerprint: str, deadline: Deadline) -> Embeddings:
    return await embedders.embed(
        ["a text"],
        input_type="query",
        lane="interactive",
        fingerprint=fingerprint,
        deadline=deadline,
    )


def embedded(script: Script) -> int:
    """How many texts the worker was asked to embed."""
    return sum(isinstance(one, embedder_pb2.EmbedTextsRequest) for one in script.requests)


def asked(script: Script) -> int:
    """How often the worker was asked for its model."""
    return sum(isinstance(one, embedder_pb2.GetModelRequest) for one in script.requests)


async def test_each_call_goes_to_the_one_that_holds_the_model(pair: Pair) -> None:
    for fingerprint in (OLD, NEW, NEW):
        assert (await embed(pair.embedders, fingerprint, soon())).fingerprint == fingerprint
    assert (embedded(pair.old), embedded(pair.new)) == (1, 2)
    # The question to one is given up when the other has answered what was wanted.
    assert asked(pair.old) == 1
    assert asked(pair.new) <= 2
    assert (await pair.embedders.model(soon())).fingerprint == OLD
    assert (await pair.embedders.next_model(soon())).fingerprint == NEW


async def test_a_model_that_neither_holds_is_told_with_what_to_do(pair: Pair) -> None:
    for call in (embed(pair.embedders, OTHER, soon()), pair.embedders.require(OTHER, soon())):
        with pytest.raises(ServiceError) as caught:
            await call
        assert caught.value.reason is Reason.MODEL_MISMATCH
        for words in (
            OTHER[:8], f"model@{NEW[:8]} and model@{OLD[:8]}", "EMBEDDER_TARGET or",
            "EMBEDDER_TARGET_NEXT", "POST /reindex", "'sparse'",
        ):  # fmt: skip
            assert words in caught.value.message
    assert embedded(pair.old) + embedded(pair.new) == 0


async def test_a_worker_that_came_back_with_another_model_is_found_out(pair: Pair) -> None:
    await embed(pair.embedders, OLD, soon())
    await embed(pair.embedders, NEW, soon())
    pair.old.fingerprint, pair.new.fingerprint = NEW, OLD
    # Each refuses, is asked again, and the other one gets the call.
    assert (await embed(pair.embedders, OLD, soon())).fingerprint == OLD
    assert (await embed(pair.embedders, NEW, soon())).fingerprint == NEW


async def test_before_a_refusal_all_are_asked_again_but_not_for_every_call(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.embedders.require(OLD, soon())
    await pair.embedders.require(NEW, soon())
    before = asked(pair.old), asked(pair.new)
    for _ in range(5):
        with pytest.raises(ServiceError):
            await embed(pair.embedders, OTHER, soon())
    assert (asked(pair.old), asked(pair.new)) == before
    pair.new.fingerprint = OTHER
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.0)
    assert (await embed(pair.embedders, OTHER, soon())).fingerprint == OTHER


async def test_one_that_is_away_does_not_keep_the_other_from_its_work(pair: Pair) -> None:
    await pair.new_server.aclose()
    assert (await embed(pair.embedders, OLD, soon())).fingerprint == OLD
    # Nobody knows what it would hold: that is no mismatch.
    with pytest.raises(ServiceError) as caught:
        await embed(pair.embedders, NEW, soon())
    assert caught.value.reason is Reason.EMBEDDER_UNAVAILABLE


async def test_one_that_hangs_does_not_keep_the_other_from_its_work(pair: Pair) -> None:
    pair.new.gate.clear()
    async with asyncio.timeout(5):
        assert (await embed(pair.embedders, OLD, Deadline.after(60))).fingerprint == OLD


async def test_one_embedder_alone_holds_both_parts() -> None:
    script = Script(fingerprint=OLD)
    async with (
        workers.embedder(script) as target,
        channel_to(target, EMBEDDER_SERVICE) as channel,
    ):
        alone = Embedders(EmbedderClient(channel))
        assert (await alone.next_model(soon())).fingerprint == OLD
        assert (await embed(alone, OLD, soon())).fingerprint == OLD
        with pytest.raises(ServiceError) as caught:
            await embed(alone, NEW, soon())
    assert caught.value.reason is Reason.MODEL_MISMATCH
