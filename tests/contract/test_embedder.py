"""`rag.embedder.v1` as a caller of any language sees it."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rag.embedder.v1 import embedder_pb2 as pb
from rag.embedder.v1 import embedder_pb2_grpc
from support.encoder_workers import embedder, failure, retry_info
from support.models import MINILM, TEXTS, exports
from support.serving import Running

from encoders.embedding import EmbeddingModel, load_embedding_model
from encoders.options import Runtime
from runtime.errors import Reason, ServiceError, decode

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICE = "rag.embedder.v1.EmbedderService"
QUERY = pb.INPUT_TYPE_QUERY
PASSAGE = pb.INPUT_TYPE_PASSAGE
Stub = embedder_pb2_grpc.EmbedderServiceStub
# About 2 s of work: long enough to find the worker busy, short enough to wait for.
LONG_WORK = ["Ownership is a set of rules. " * 60] * 64


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[tuple[Running, grpc.aio.Channel, str]]:
    async with embedder() as (running, channel):
        yield running, channel, await running.ready()


@pytest.fixture
def stub(
    worker: tuple[Running, grpc.aio.Channel, str],
) -> embedder_pb2_grpc.EmbedderServiceAsyncStub:
    return Stub(worker[1])


def request(texts: list[str], **fields: object) -> pb.EmbedTextsRequest:
    given = {"texts": texts, "input_type": PASSAGE, "truncate": True, **fields}
    return pb.EmbedTextsRequest(**given)


async def test_it_says_what_it_runs(worker: tuple[Running, grpc.aio.Channel, str], stub) -> None:
    model = await stub.GetModel(pb.GetModelRequest())
    assert (model.name, model.dimension, model.max_tokens) == (MINILM, 384, 256)
    assert worker[2].startswith(f"all-MiniLM-L6-v2@{model.fingerprint[:8]}, ")
    assert worker[2].endswith(" 2 threads")


async def test_vectors_are_the_models_row_by_row(stub) -> None:
    response = await stub.EmbedTexts(request(TEXTS))
    vectors = np.frombuffer(response.vectors, "<f4").reshape(len(TEXTS), response.dimension)
    model = load_embedding_model(MINILM, Runtime("openvino", "fp32", 2, exports()))
    expected = model.encode(TEXTS)
    assert ((vectors * expected).sum(axis=1) >= 0.999).all()
    assert list(response.truncated) == [5]
    assert response.fingerprint == model.identity.fingerprint
    assert response.tokens == sum(len(row) for row in model.tokenize(TEXTS, "passage"))


async def test_an_answer_says_what_of_its_time_was_the_models(stub) -> None:
    call = stub.EmbedTexts(request(TEXTS))
    await call
    told = {key: float(value) for key, value in await call.trailing_metadata() or ()}
    assert told["rag-model-ms"] > 1
    assert told["rag-queue-ms"] >= 0


async def test_the_speed_is_known_before_the_first_call() -> None:
    async with embedder() as (running, _):
        await running.ready()
        assert await _metric(running, "rag_tokens_per_second") > 100


@pytest.mark.parametrize("lane", [pb.LANE_UNSPECIFIED, pb.LANE_INTERACTIVE, pb.LANE_BULK])
async def test_every_lane_answers(stub, lane: int) -> None:
    response = await stub.EmbedTexts(request(["a text"], lane=lane, input_type=QUERY))
    assert len(response.vectors) == 384 * 4


async def test_the_most_texts_go_in_one_call(stub) -> None:
    response = await stub.EmbedTexts(request([f"text {n}" for n in range(1024)]))
    assert len(response.vectors) == 1024 * 384 * 4


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (request([]), "texts"),
        (request(["a"] * 1025), "texts"),
        (request(["a", "", "b"]), "texts[1]"),
        (request(["a", " \n\t"]), "texts[1]"),
        (request(["a", "b", "x" * 65_537]), "texts[2]"),
        (request(["é" * 32_769]), "texts[0]"),
        (request(["a"], input_type=pb.INPUT_TYPE_UNSPECIFIED), "input_type"),
        (request(["a"], input_type=7), "input_type"),
        (request(["a"], lane=7), "lane"),
    ],
)
async def test_a_wrong_field_is_named(stub, wrong: pb.EmbedTextsRequest, field: str) -> None:
    code, error = await failure(stub.EmbedTexts(wrong))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.metadata["field"]) == (Reason.INVALID_ARGUMENT, field)


async def test_a_text_that_may_not_be_cut_is_refused(stub) -> None:
    code, error = await failure(stub.EmbedTexts(request(TEXTS, truncate=False)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == Reason.TEXT_TOO_LONG
    assert error.metadata == {"field": "texts[5]", "max_tokens": "256"}


async def test_another_fingerprint_is_refused_with_both_named(stub) -> None:
    held = (await stub.GetModel(pb.GetModelRequest())).fingerprint
    code, error = await failure(stub.EmbedTexts(request(["a"], expected_fingerprint="0" * 16)))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == Reason.MODEL_MISMATCH
    assert error.metadata == {
        "expected_fingerprint": "0" * 16, "fingerprint": held, "model": MINILM,
    }  # fmt: skip
    assert await stub.EmbedTexts(request(["a"], expected_fingerprint=held))


async def test_a_deadline_that_passes_is_said(stub) -> None:
    code, error = await failure(stub.EmbedTexts(request(LONG_WORK), timeout=0.05))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.reason == Reason.DEADLINE_EXCEEDED


async def test_health_has_the_names_of_the_probes(worker) -> None:
    health = health_pb2_grpc.HealthStub(worker[1])
    for name in ("live", SERVICE, ""):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_shows_the_service(worker) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(worker[1])
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    call = stub.ServerReflectionInfo(iter([asked]))
    async for answer in call:
        names = {service.name for service in answer.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names
        break
    call.cancel()


async def test_metrics_are_there(worker, stub) -> None:
    await stub.EmbedTexts(request(["a text"]))
    url = f"http://127.0.0.1:{worker[0].metrics_port}/metrics"
    page = (
        await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read())
    ).decode()
    for series in (
        'rag_queue_tokens{lane="bulk"} 0.0',
        'rag_queue_oldest_age_seconds{lane="interactive"} 0.0',
        'rag_requests_shed_total{cause="unhealthy"} 0.0',
    ):
        assert series in page
    for name in (
        "rag_batch_fill_ratio_bucket",
        'rag_tokens_total{kind="padding"}',
        "rag_tokens_per_second",
    ):
        assert name in page


async def test_a_full_queue_says_when_to_come_back() -> None:
    async with embedder(queue_tokens=1024) as (running, channel):
        await running.ready()
        stub = Stub(channel)
        busy = asyncio.ensure_future(_admitted(stub))
        code, error = await _refused(stub, Reason.QUEUE_FULL)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.retry_after_s is not None
        assert 0 < await retry_info(_raised(error)) <= 30
        assert len((await busy).vectors) == 64 * 384 * 4


async def test_a_worker_that_stops_finishes_what_runs_and_refuses_the_rest() -> None:
    async with embedder() as (running, channel):
        await running.ready()
        stub = Stub(channel)
        busy = asyncio.ensure_future(stub.EmbedTexts(request(LONG_WORK, lane=pb.LANE_BULK)))
        await _queued(running)
        running.stop()
        code, _ = await _refused(stub, Reason.UNAVAILABLE)
        # It has said GOAWAY; gRPC cancels a call that was on its way meanwhile.
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert len((await busy).vectors) == 64 * 384 * 4


async def test_a_worker_that_loads_says_so() -> None:
    async with embedder() as (running, channel):
        stub = Stub(channel)
        code, error = await failure(stub.GetModel(pb.GetModelRequest()))
        assert code == grpc.StatusCode.UNAVAILABLE
        assert error.reason == Reason.MODEL_LOADING
        assert error.retry_after_s is not None
        health = health_pb2_grpc.HealthStub(channel)
        live = await health.Check(health_pb2.HealthCheckRequest(service="live"))
        assert live.status == health_pb2.HealthCheckResponse.SERVING
        ready = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert ready.status == health_pb2.HealthCheckResponse.NOT_SERVING
        await running.ready()
        assert await stub.GetModel(pb.GetModelRequest())


async def test_a_model_that_fails_again_and_again_is_taken_out_until_it_works(monkeypatch) -> None:
    def fail(self: EmbeddingModel, batch: object) -> None:
        raise RuntimeError("the device is gone, says the test")

    async with embedder(max_model_failures=2) as (running, channel):
        await running.ready()
        stub = Stub(channel)
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE)
        )
        states = watch.__aiter__()
        async with asyncio.timeout(60):
            assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
            with monkeypatch.context() as patched:
                patched.setattr(EmbeddingModel, "embed", fail)
                for _ in range(2):
                    code, error = await failure(stub.EmbedTexts(request(["a text"])))
                    assert (code, error.reason) == (grpc.StatusCode.INTERNAL, Reason.MODEL_FAILED)
                assert (await anext(states)).status == health_pb2.HealthCheckResponse.NOT_SERVING
                code, _ = await failure(stub.EmbedTexts(request(["a text"])))
                assert code == grpc.StatusCode.UNAVAILABLE
            assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        assert await stub.EmbedTexts(request(["a text"]))


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    async with embedder() as (running, channel):
        await running.ready()
        call = Stub(channel).EmbedTexts(request(LONG_WORK, lane=pb.LANE_BULK))
        waiting = asyncio.ensure_future(_ended(call))
        await _queued(running)
        call.cancel()
        await waiting
        async with asyncio.timeout(10):
            while await _queue_tokens(running) > 0:
                await asyncio.sleep(0.01)


async def _refused(stub, reason: Reason) -> tuple[grpc.StatusCode, ServiceError]:
    """Asks until the worker refuses for that reason: when it starts to is its own affair."""
    async with asyncio.timeout(30):
        while True:
            try:
                await stub.EmbedTexts(request(["word " * 250] * 8, lane=pb.LANE_BULK), timeout=0.2)
            except grpc.aio.AioRpcError as error:
                refused = decode(error)
                if refused.reason == reason:
                    refused.__cause__ = error
                    return error.code(), refused


async def _admitted(stub):
    """The long work's answer; refused while a shorter call happens to be in, it is sent again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await stub.EmbedTexts(request(LONG_WORK, lane=pb.LANE_BULK))
            except grpc.aio.AioRpcError as error:
                if decode(error).reason != Reason.QUEUE_FULL:
                    raise


async def _raised(error: ServiceError) -> None:
    """Fails again as the call behind `error` did: another call might find the queue empty."""
    assert error.__cause__ is not None
    raise error.__cause__


async def _ended(call) -> None:
    with pytest.raises(asyncio.CancelledError):
        await call


async def _queued(running: Running) -> None:
    async with asyncio.timeout(10):
        while await _queue_tokens(running) == 0:
            await asyncio.sleep(0.01)


async def _queue_tokens(running: Running) -> float:
    return await _metric(running, 'rag_queue_tokens{lane="bulk"}')


async def _metric(running: Running, series: str) -> float:
    url = f"http://127.0.0.1:{running.metrics_port}/metrics"
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read())
    (line,) = [line for line in page.decode().splitlines() if line.startswith(series)]
    return float(line.split()[-1])
