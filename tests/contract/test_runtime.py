"""The server and the channel that every worker shares, over a real socket."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from rag.generator.v1 import generator_pb2, generator_pb2_grpc
from support.serving import Running, listening

from runtime.channel import open_channel
from runtime.errors import INTERNAL_MESSAGE, Reason, ServiceError
from runtime.health import LIVE, Health
from runtime.server import Service, serve_worker
from runtime.settings import WorkerSettings
from runtime.supervision import ResourceTaken
from runtime.telemetry import Tracing

EMBEDDER = "rag.embedder.v1.EmbedderService"
GENERATOR = "rag.generator.v1.GeneratorService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Script:
    """What the servicers below do; each test writes its own."""

    behave: Callable[[Any], Awaitable[Any]]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0
    traceparent: str | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


class ScriptedEmbedder(embedder_pb2_grpc.EmbedderServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def GetModel(self, request: Any, context: Any) -> Any:
        self.script.calls += 1
        self.script.traceparent = dict(context.invocation_metadata()).get("traceparent")
        await self.script.behave(context)
        return embedder_pb2.GetModelResponse(name="m")


class ScriptedGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def GenerateAnswer(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            yield generator_pb2.GenerateAnswerResponse(text_delta="one")
            await self.script.behave(context)
            yield generator_pb2.GenerateAnswerResponse(text_delta="two")
        except BaseException:
            # Cancelled where it waits, or closed where it had just handed out a message.
            self.script.cancelled.set()
            raise


@asynccontextmanager
async def serve(
    name: str, servicer: Any, add: Any, method: str, script: Script, **overrides: Any
) -> AsyncIterator[tuple[Running, Health]]:
    health = Health(name)

    async def start() -> str:
        await script.ready.wait()
        return "scripted"

    async def stop() -> None:
        return

    service = Service(name, (method,), lambda server: add(servicer, server), start, stop)

    def run(fd: int) -> Any:
        settings = WorkerSettings(
            **{
                "grpc_host": "127.0.0.1", "grpc_port": 0, "metrics_host": "127.0.0.1",
                "metrics_port": 0, "drain_pause_seconds": 0, "control_fd": fd, **overrides,
            }
        )  # fmt: skip
        return serve_worker(settings, service, health, CollectorRegistry())

    async with listening(run) as running:
        yield running, health


@asynccontextmanager
async def embedder(
    script: Script, *, ready: bool = True, **overrides: Any
) -> AsyncIterator[tuple[Running, Health, embedder_pb2_grpc.EmbedderServiceAsyncStub]]:
    if ready:
        script.ready.set()
    add = embedder_pb2_grpc.add_EmbedderServiceServicer_to_server
    servicer = ScriptedEmbedder(script)
    async with serve(EMBEDDER, servicer, add, "GetModel", script, **overrides) as (running, health):
        if ready:
            assert await running.ready() == "scripted"
        async with open_channel(running.target, EMBEDDER, Tracing(None)) as channel:
            yield running, health, embedder_pb2_grpc.EmbedderServiceStub(channel)


async def nothing(context: Any) -> None:
    return


def raising(error: Exception) -> Callable[[Any], Awaitable[None]]:
    async def behave(context: Any) -> None:
        raise error

    return behave


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_crosses_the_wire_with_all_it_carries(reason: Reason) -> None:
    error = ServiceError(reason, "what happened", 1.5, field="texts[3]", limit="8192")
    async with embedder(Script(raising(error))) as (_, _, stub):
        with pytest.raises(ServiceError) as caught:
            await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
    received = caught.value
    assert received.reason is reason
    assert received.message == "what happened"
    assert received.retry_after_s == 1.5
    assert received.metadata == {"field": "texts[3]", "limit": "8192"}


async def test_an_unforeseen_error_tells_the_caller_nothing_of_itself() -> None:
    async with embedder(Script(raising(OSError("/secret/path on host7")))) as (_, _, stub):
        with pytest.raises(ServiceError) as caught:
            await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
    assert caught.value.reason is Reason.INTERNAL
    assert caught.value.message == INTERNAL_MESSAGE


async def test_a_bare_status_becomes_the_nearest_reason_without_its_text() -> None:
    async def abort(context: Any) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "host7 is full")

    async with embedder(Script(abort)) as (_, _, stub):
        with pytest.raises(ServiceError) as caught:
            await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
    assert caught.value.reason is Reason.QUEUE_FULL
    assert "host7" not in caught.value.message


async def test_details_that_nobody_understands_are_passed_over() -> None:
    async def abort(context: Any) -> None:
        details = (("grpc-status-details-bin", b"\xff no status"),)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "x", details)

    async with embedder(Script(abort)) as (_, _, stub):
        with pytest.raises(ServiceError) as caught:
            await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
    assert caught.value.reason is Reason.UNAVAILABLE


async def test_until_ready_calls_are_refused_and_health_says_so() -> None:
    script = Script(nothing)
    async with embedder(script, ready=False) as (running, _, _):
        async with grpc.aio.insecure_channel(running.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            bare = embedder_pb2_grpc.EmbedderServiceStub(channel)
            live = await health.Check(health_pb2.HealthCheckRequest(service=LIVE))
            assert live.status == SERVING
            for name in ("", EMBEDDER):
                state = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert state.status == NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await bare.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            script.ready.set()
            await running.ready()
            state = await health.Check(health_pb2.HealthCheckRequest(service=EMBEDDER))
            assert state.status == SERVING
            await bare.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
    assert script.calls == 1


async def test_a_service_out_of_order_gets_no_calls_until_it_is_back() -> None:
    script = Script(nothing)
    async with embedder(script) as (_, health, stub):
        await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
        await health.set_serving(False)
        with pytest.raises(ServiceError) as caught:
            await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
        assert caught.value.reason in (Reason.UNAVAILABLE, Reason.MODEL_LOADING)
        await health.set_serving(True)
        await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10, wait_for_ready=True)
    assert script.calls == 2


async def test_more_calls_than_allowed_are_refused_at_once_and_health_is_not() -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def hold(context: Any) -> None:
        arrived.set()
        await release.wait()

    async with embedder(Script(hold), max_concurrent_rpcs=1) as (running, _, stub):
        first = asyncio.ensure_future(stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10))
        await arrived.wait()
        with pytest.raises(ServiceError) as caught:
            await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
        assert caught.value.reason is Reason.QUEUE_FULL
        assert caught.value.retry_after_s
        async with grpc.aio.insecure_channel(running.target) as channel:
            request = health_pb2.HealthCheckRequest(service=EMBEDDER)
            assert (await health_pb2_grpc.HealthStub(channel).Check(request)).status == SERVING
        release.set()
        assert (await first).name == "m"


async def test_the_deadline_ends_a_call_on_both_sides() -> None:
    async def forever(context: Any) -> None:
        await asyncio.get_running_loop().create_future()

    async with embedder(Script(forever)) as (_, _, stub):
        with pytest.raises(ServiceError) as caught:
            await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=0.2)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


async def test_stopping_finishes_what_runs_and_refuses_the_rest() -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def hold(context: Any) -> None:
        arrived.set()
        await release.wait()

    async with embedder(Script(hold)) as (running, health, stub):
        first = asyncio.ensure_future(stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10))
        await arrived.wait()
        running.stop()
        while not health.draining:
            await asyncio.sleep(0)
        with pytest.raises(ServiceError) as caught:
            await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=5)
        assert caught.value.reason in (Reason.DRAINING, Reason.UNAVAILABLE)
        assert not running.task.done()
        release.set()
        assert (await first).name == "m"
        await asyncio.wait_for(running.task, 10)


async def test_the_trace_of_the_caller_reaches_the_worker() -> None:
    script = Script(nothing)
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    async with embedder(script) as (running, _, _):
        tracing = Tracing(None)
        tracing.enter("request", traceparent)
        assert tracing.trace_id() == "a" * 32
        async with open_channel(running.target, EMBEDDER, tracing) as channel:
            stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
            await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
    assert script.traceparent == traceparent


async def test_a_proxy_for_the_outside_world_does_not_stand_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with embedder(Script(nothing)) as (_, _, stub):
        answer = await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
    assert answer.name == "m"


async def test_metrics_of_every_method_exist_from_the_first_scrape() -> None:
    async with embedder(Script(nothing)) as (running, _, stub):
        url = f"http://127.0.0.1:{running.metrics_port}/metrics"

        def scrape() -> str:
            with urllib.request.urlopen(url, timeout=5) as response:
                text: str = response.read().decode()
            return text

        before = await asyncio.to_thread(scrape)
        for code in ("OK", "CANCELLED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL"):
            assert f'rag_rpcs_total{{code="{code}",method="GetModel"}} 0.0' in before
        await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=10)
        assert 'rag_rpcs_total{code="OK",method="GetModel"} 1.0' in await asyncio.to_thread(scrape)


@asynccontextmanager
async def generator(
    script: Script,
) -> AsyncIterator[generator_pb2_grpc.GeneratorServiceAsyncStub]:
    script.ready.set()
    add = generator_pb2_grpc.add_GeneratorServiceServicer_to_server
    servicer = ScriptedGenerator(script)
    async with serve(GENERATOR, servicer, add, "GenerateAnswer", script) as (running, _):
        await running.ready()
        async with open_channel(running.target, GENERATOR, Tracing(None)) as channel:
            yield generator_pb2_grpc.GeneratorServiceStub(channel)


async def test_a_stream_arrives_whole() -> None:
    async with generator(Script(nothing)) as stub:
        call = stub.GenerateAnswer(generator_pb2.GenerateAnswerRequest(), timeout=10)
        assert [message.text_delta async for message in call] == ["one", "two"]


async def test_a_stream_that_fails_raises_the_typed_error_after_what_was_sent() -> None:
    error = ServiceError(Reason.MODEL_FAILED, "no more")
    async with generator(Script(raising(error))) as stub:
        received = []
        with pytest.raises(ServiceError) as caught:
            async for message in stub.GenerateAnswer(
                generator_pb2.GenerateAnswerRequest(), timeout=10
            ):
                received.append(message.text_delta)
        assert received == ["one"]
        assert caught.value.reason is Reason.MODEL_FAILED


async def test_cancelling_a_stream_stops_the_worker() -> None:
    async def forever(context: Any) -> None:
        await asyncio.get_running_loop().create_future()

    script = Script(forever)
    async with generator(script) as stub:
        call = stub.GenerateAnswer(generator_pb2.GenerateAnswerRequest(), timeout=60)

        first = asyncio.Event()

        async def read() -> None:
            async for _ in call:
                first.set()

        reader = asyncio.create_task(read())
        await first.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await asyncio.wait_for(script.cancelled.wait(), 10)


async def test_a_taken_port_is_one_line_that_names_the_setting() -> None:
    async with embedder(Script(nothing)) as (running, _, _):
        port = int(running.target.rsplit(":", 1)[1])
        with pytest.raises(ResourceTaken, match="^GRPC_HOST, GRPC_PORT: ") as caught:
            async with serve(
                EMBEDDER, ScriptedEmbedder(Script(nothing)),
                embedder_pb2_grpc.add_EmbedderServiceServicer_to_server, "GetModel",
                Script(nothing), grpc_port=port,
            ):  # fmt: skip
                pytest.fail("two servers share a port")
        assert "\n" not in str(caught.value)
