"""`rag.reranker.v1` as a caller of any language sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rag.reranker.v1 import reranker_pb2 as pb
from rag.reranker.v1 import reranker_pb2_grpc
from support.adapters import tiny_adapter
from support.encoder_workers import failure, reranker, retry_info
from support.models import TEXTS, exports, tiny_cross_encoder, tiny_encoder
from support.serving import Running

from encoders.options import Runtime
from encoders.scoring import load_pair_scorer
from runtime.errors import Reason

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICE = "rag.reranker.v1.RerankerService"
RERANKER = "production-rag/reranker"
QUESTION = "How does Rust ensure memory safety?"
Stub = reranker_pb2_grpc.RerankerServiceStub
# About 2 s of work.
LONG_WORK = ["Ownership is a set of rules. " * 60] * 64


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[tuple[Running, grpc.aio.Channel, str]]:
    async with reranker() as (running, channel):
        yield running, channel, await running.ready()


@pytest.fixture
def stub(worker):
    return Stub(worker[1])


def request(passages: list[str], **fields: object) -> pb.ScorePassagesRequest:
    given = {"query": QUESTION, "passages": passages, "truncate": True, **fields}
    return pb.ScorePassagesRequest(**given)


async def test_it_says_what_it_runs(worker, stub) -> None:
    model = await stub.GetModel(pb.GetModelRequest())
    assert (model.name, model.engine, model.max_tokens) == (RERANKER, "late_interaction", 256)
    assert worker[2].startswith(f"reranker@{model.fingerprint[:8]}, ")
    assert worker[2].endswith("late interaction")


async def test_scores_are_the_models_in_the_order_of_the_request(stub) -> None:
    response = await stub.ScorePassages(request(TEXTS))
    scorer = load_pair_scorer(RERANKER, Runtime("openvino", "fp32", 2, exports()))
    prepared = scorer.prepare(QUESTION, TEXTS)
    assert list(response.scores) == pytest.approx(scorer.score(prepared.pairs), abs=5e-3)
    assert all(0 <= score <= 1 for score in response.scores)
    assert list(response.truncated) == [5]
    assert response.tokens == prepared.tokens
    assert response.fingerprint == scorer.identity.fingerprint
    # The first passage is the question itself.
    assert max(response.scores) == response.scores[0] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (request([]), "passages"),
        (request(["a"] * 1025), "passages"),
        (request(["a", ""]), "passages[1]"),
        (request(["a", "x" * 65_537]), "passages[1]"),
        (request(["a"], query=""), "query"),
        (request(["a"], query="x" * 65_537), "query"),
    ],
)
async def test_a_wrong_field_is_named(stub, wrong: pb.ScorePassagesRequest, field: str) -> None:
    code, error = await failure(stub.ScorePassages(wrong))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.metadata["field"]) == (Reason.INVALID_ARGUMENT, field)


async def test_a_query_that_may_not_be_cut_is_named(stub) -> None:
    asked = request(["short"], query="word " * 400, truncate=False)
    _, error = await failure(stub.ScorePassages(asked))
    assert (error.reason, error.metadata["field"]) == (Reason.TEXT_TOO_LONG, "query")


async def test_a_passage_that_may_not_be_cut_is_refused(stub) -> None:
    _, error = await failure(stub.ScorePassages(request(TEXTS, truncate=False)))
    assert error.reason == Reason.TEXT_TOO_LONG
    assert error.metadata == {"field": "passages[5]", "max_tokens": "256"}


async def test_a_query_that_must_be_cut_counts_for_every_passage(stub) -> None:
    response = await stub.ScorePassages(request(["a", "b"], query="word " * 300))
    assert list(response.truncated) == [0, 1]


async def test_another_fingerprint_is_refused(stub) -> None:
    held = (await stub.GetModel(pb.GetModelRequest())).fingerprint
    code, error = await failure(stub.ScorePassages(request(["a"], expected_fingerprint="other")))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == Reason.MODEL_MISMATCH
    assert error.metadata["fingerprint"] == held


async def test_a_deadline_that_passes_is_said(stub) -> None:
    code, error = await failure(stub.ScorePassages(request(LONG_WORK), timeout=0.05))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.reason == Reason.DEADLINE_EXCEEDED


async def test_what_cannot_be_scored_in_time_is_refused_at_the_door(stub) -> None:
    # Half of what the work takes here and now: less than a quarter would be hopeless, and told
    # as such whether or not others wait.
    started_s = time.monotonic()
    await _scores(stub, request(LONG_WORK))
    half_s = (time.monotonic() - started_s) / 2
    busy = asyncio.ensure_future(_scores(stub, request(LONG_WORK)))
    refused = None
    async with asyncio.timeout(30):
        while refused is None:
            _, error = await failure(stub.ScorePassages(request(LONG_WORK), timeout=half_s))
            refused = error if error.reason == Reason.QUEUE_FULL else None
    assert refused.retry_after_s is not None
    assert 0 < await retry_info(stub.ScorePassages(request(LONG_WORK), timeout=half_s)) <= 30
    assert len(await busy) == 64


async def test_health_and_reflection(worker) -> None:
    health = health_pb2_grpc.HealthStub(worker[1])
    for name in ("live", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(worker[1])
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
    call = stub.ServerReflectionInfo(iter([asked]))
    async for answer in call:
        assert answer.file_descriptor_response.file_descriptor_proto
        break
    call.cancel()


async def test_a_worker_that_loads_says_so() -> None:
    async with reranker() as (running, channel):
        code, error = await failure(Stub(channel).GetModel(pb.GetModelRequest()))
        assert code == grpc.StatusCode.UNAVAILABLE
        assert error.reason == Reason.MODEL_LOADING
        await running.ready()


@pytest.mark.parametrize("adapted", [False, True])
async def test_a_cross_encoder_is_served_by_the_same_worker(adapted: bool, tmp_path: Path) -> None:
    if adapted:
        path = tmp_path / "tiny-adapter.safetensors"
        made = tiny_adapter(path, tiny_encoder(tmp_path), "cross_encoder")
    else:
        made = tiny_cross_encoder(tmp_path)
    settings = {"reranker_model": str(made), "reranker_backend": "torch"}
    async with reranker(**settings, reranker_precision="fp32") as (running, channel):
        ready = await running.ready()
        assert ready.startswith(f"{made.stem}@")
        assert ready.endswith("cross-encoder")
        stub = Stub(channel)
        model = await stub.GetModel(pb.GetModelRequest())
        assert (model.name, model.engine) == (made.stem, "cross_encoder")
        response = await stub.ScorePassages(request(TEXTS))
        scorer = load_pair_scorer(str(made), Runtime("torch", "fp32", 2, exports()))
        expected = scorer.score(scorer.prepare(QUESTION, TEXTS).pairs)
        assert list(response.scores) == pytest.approx(expected, abs=1e-4)


async def _scores(stub, asked: pb.ScorePassagesRequest) -> list[float]:
    return list((await stub.ScorePassages(asked)).scores)
