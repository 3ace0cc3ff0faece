"""What /health says, and when the gateway is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support import workers
from support.embedder import DIMENSION, FINGERPRINT
from support.http import FakeStore, Site
from support.workers import Script, channel_to

from gateway.clients import EMBEDDER_SERVICE, EmbedderClient
from gateway.health import Health, Worker, WorkerName
from gateway.metrics import GatewayMetrics
from gateway.search.types import Model


async def until(true: Callable[[], bool]) -> None:
    async def look() -> None:
        while not true():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), 10)


@asynccontextmanager
async def watching(
    store: FakeStore,
    registry: CollectorRegistry,
    *,
    vector_dim: int = DIMENSION,
    ping_cache: Callable[[], Awaitable[bool]] | None = None,
    next_target: str | None = None,
) -> AsyncIterator[tuple[Health, AsyncExitStack, Script]]:
    """A health that watches an embedder, whose server ends with the stack."""
    script = Script()
    async with AsyncExitStack() as server, AsyncExitStack() as rest:
        target = await server.enter_async_context(workers.embedder(script))
        embedders = {}
        targets: dict[WorkerName, str | None] = {"embedder": target, "embedder_next": next_target}
        for name, one in targets.items():
            if one is not None:
                channel = await rest.enter_async_context(channel_to(one, EMBEDDER_SERVICE))
                embedders[name] = Worker(channel, EmbedderClient(channel))
        health = Health(
            store=store,
            ping_cache=ping_cache,
            workers=embedders,
            collection="documents",
            vector_dim=vector_dim,
            probe_interval_s=0.01,
            version="1.2.3",
            metrics=GatewayMetrics(registry),
        )
        task = asyncio.create_task(health.watch())
        try:
            yield health, server, script
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_ready_latches_and_the_picture_goes_on(registry: CollectorRegistry) -> None:
    store = FakeStore(model=None, down=True)
    async with watching(store, registry) as (health, server, _):
        await until(lambda: health.report().components.embedder == "up")
        assert not health.readiness().ready
        assert health.readiness().notes == ["Waiting for vector_db."]
        assert health.report().status == "unhealthy"
        store.down = False
        await asyncio.wait_for(health.became_ready.wait(), 5)
        assert health.readiness().ready
        # The fixture has no reranker and no generator.
        assert health.report().status == "degraded"
        assert [note.split()[1] for note in health.report().notes] == ["reranker", "generator"]

        await server.aclose()
        await until(lambda: health.report().components.embedder == "down")
        store.down = True
        await until(lambda: health.report().components.vector_db == "down")
        assert health.report().status == "unhealthy"
        assert registry.get_sample_value("rag_component_up", {"component": "embedder"}) == 0
        assert health.readiness().ready

        store.broken = True
        assert not health.readiness().ready
        store.broken = False
        health.drain()
        assert health.readiness().notes[0] == "The gateway is stopping."


async def test_vectors_of_another_length_are_not_ready_and_said_why(
    registry: CollectorRegistry,
) -> None:
    async with watching(FakeStore(model=None), registry, vector_dim=768) as (health, _, _):
        await until(lambda: health.report().components.embedder == "up")
        await until(lambda: bool(health.readiness().notes))
        assert not health.readiness().ready
        (note,) = health.readiness().notes
        assert "VECTOR_DIM is 768" in note
        assert f"VECTOR_DIM={DIMENSION}" in note


async def test_an_embedder_that_does_not_tell_its_model_is_down(
    registry: CollectorRegistry,
) -> None:
    async with watching(FakeStore(model=None), registry) as (health, _, script):
        script.twist = lambda answer: type(answer)()
        await until(lambda: len(script.requests) >= 2)
        assert health.report().components.embedder == "down"
        script.twist = lambda answer: answer
        await asyncio.wait_for(health.became_ready.wait(), 5)


NEXT = Model("other", "e" * 64, DIMENSION)


async def test_the_embedder_is_the_one_that_holds_the_default_collections_model(
    registry: CollectorRegistry,
) -> None:
    script = Script(fingerprint=NEXT.fingerprint)
    store = FakeStore(model=Model("model", FINGERPRINT, DIMENSION))
    async with AsyncExitStack() as next_server:
        target = await next_server.enter_async_context(workers.embedder(script))
        async with watching(store, registry, next_target=target) as (health, server, _):
            await until(lambda: health.report().components.embedder == "up")
            await until(lambda: "EMBEDDER_TARGET_NEXT" not in "".join(health.report().notes))
            await server.aclose()
            await until(lambda: health.report().components.embedder == "down")
            store.model = NEXT  # it was moved
            await until(lambda: health.report().components.embedder == "up")
            await next_server.aclose()
            await until(lambda: health.report().components.embedder == "down")
            assert health.report().notes[0].startswith("EMBEDDER_TARGET_NEXT cannot be reached")


async def test_a_next_embedder_that_is_away_takes_nothing_away(
    registry: CollectorRegistry,
) -> None:
    store = FakeStore(model=Model("model", FINGERPRINT, DIMENSION))
    async with watching(store, registry, next_target="127.0.0.1:1") as (health, _, _):
        await asyncio.wait_for(health.became_ready.wait(), 5)
        assert health.report().components.embedder == "up"
        assert health.report().status == "degraded"
        assert "no collection can be moved" in health.report().notes[0]


async def test_the_length_of_vectors_may_be_that_of_the_next_model(
    registry: CollectorRegistry,
) -> None:
    def longer(answer: Any) -> Any:
        answer.dimension = 2 * DIMENSION
        return answer

    script = Script(fingerprint=NEXT.fingerprint, twist=longer)
    async with (
        workers.embedder(script) as target,
        watching(FakeStore(model=None), registry, vector_dim=2 * DIMENSION, next_target=target) as (
            health,
            _,
            _,
        ),
    ):
        await asyncio.wait_for(health.became_ready.wait(), 10)
        assert not any("VECTOR_DIM" in note for note in health.report().notes)


async def test_a_model_that_nobody_holds_is_told(registry: CollectorRegistry) -> None:
    async with watching(FakeStore(model=NEXT), registry) as (health, _, _):
        await asyncio.wait_for(health.became_ready.wait(), 5)
        await until(lambda: "No embedder holds other@eeeeeeee" in "".join(health.report().notes))
        assert health.report().components.embedder == "up"


async def test_redis_down_is_the_cache_down_and_no_more(registry: CollectorRegistry) -> None:
    answers = iter([True, False])

    async def ping() -> bool:
        return next(answers, False)

    async with watching(FakeStore(model=None), registry, ping_cache=ping) as (health, _, _):
        await asyncio.wait_for(health.became_ready.wait(), 5)
        await until(lambda: health.report().components.cache == "down")
        assert health.report().status == "degraded"


async def test_what_nobody_foresaw_does_not_end_the_watch(
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = FakeStore(model=None)
    asked = {"store": 0, "cache": 0}
    fault: list[Exception] = [RuntimeError("odd")]

    async def ping_store() -> None:
        asked["store"] += 1
        if fault:
            raise fault[0]

    async def ping_cache() -> bool:
        asked["cache"] += 1
        if fault:
            raise fault[0]
        return True

    monkeypatch.setattr(store, "ping", ping_store)
    async with watching(store, registry, ping_cache=ping_cache) as (health, _, _):
        await until(lambda: min(asked.values()) >= 3)
        components = health.report().components
        assert (components.vector_db, components.cache) == ("down", "down")
        fault.clear()
        await asyncio.wait_for(health.became_ready.wait(), 5)
        await until(lambda: health.report().components.cache == "up")
    told = [one for one in caplog.records if one.exc_info]
    assert sorted(one.getMessage() for one in told) == [
        "asking cache failed",
        "asking vector_db failed",
    ]


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/live", "/metrics"])
async def test_probes_ask_nobody(path: str) -> None:
    site = Site()
    site.store.down = True
    async with site.client() as client:
        response: Any = await client.get(path)
    assert response.status_code == (503 if path == "/health/ready" else 200)
    assert site.store.calls == []
