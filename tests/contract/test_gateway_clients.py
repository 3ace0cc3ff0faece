"""The gateway's clients against the workers' services over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from rag.embedder.v1 import embedder_pb2
from rag.generator.v1 import generator_pb2
from support import workers
from support.embedder import DIMENSION, FINGERPRINT, vector_of
from support.workers import Script, channel_to

from gateway.clients import (
    EMBEDDER_SERVICE,
    GENERATOR_SERVICE,
    RERANKER_SERVICE,
    AnswerSpan,
    Completion,
    EmbedderClient,
    GeneratorClient,
    Passage,
    RerankerClient,
)
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def embedder(script: Script) -> AsyncIterator[EmbedderClient]:
    async with (
        workers.embedder(script) as target,
        channel_to(target, EMBEDDER_SERVICE) as channel,
    ):
        yield EmbedderClient(channel)


@pytest.fixture
async def reranker(script: Script) -> AsyncIterator[RerankerClient]:
    async with (
        workers.reranker(script) as target,
        channel_to(target, RERANKER_SERVICE) as channel,
    ):
        yield RerankerClient(channel)


@pytest.fixture
async def generator(script: Script) -> AsyncIterator[GeneratorClient]:
    async with (
        workers.generator(script) as target,
        channel_to(target, GENERATOR_SERVICE) as channel,
    ):
        yield GeneratorClient(channel)


def soon() -> Deadline:
    return Deadline.after(10)


async def embed(client: EmbedderClient, *texts: str, **options: Any) -> Any:
    given = {"input_type": "query", "lane": "interactive", "fingerprint": "", "deadline": soon()}
    return await client.embed(texts, **(given | options))


async def test_vectors_come_back_in_order(embedder: EmbedderClient, script: Script) -> None:
    made = await embed(embedder, "a", "long b", "c", input_type="passage", lane="bulk")
    assert made.vectors.shape == (3, DIMENSION)
    assert made.vectors.dtype == np.float32
    assert np.array_equal(made.vectors, np.stack([vector_of(t) for t in ("a", "long b", "c")]))
    assert made.truncated == {1}
    assert made.fingerprint == FINGERPRINT
    (request,) = script.requests
    assert request.input_type == embedder_pb2.INPUT_TYPE_PASSAGE
    assert request.lane == embedder_pb2.LANE_BULK
    assert request.truncate


async def test_the_deadline_goes_with_the_call(embedder: EmbedderClient, script: Script) -> None:
    await embed(embedder, "a", deadline=Deadline.after(3))
    (timeout_s,) = script.timeouts_s
    assert 1 < timeout_s < 3
    with pytest.raises(ServiceError) as caught:
        await embed(embedder, "a", deadline=Deadline.after(0.01))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert len(script.requests) == 1


async def test_a_worker_that_is_too_slow_is_a_deadline(
    embedder: EmbedderClient, script: Script
) -> None:
    script.gate.clear()
    with pytest.raises(ServiceError) as caught:
        await embed(embedder, "a", deadline=Deadline.after(0.4))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    await asyncio.wait_for(script.cancelled.wait(), 5)


@pytest.mark.parametrize(
    "twist",
    [
        lambda answer: embedder_pb2.EmbedTextsResponse(),
        lambda answer: _changed(answer, dimension=DIMENSION + 1),
        lambda answer: _changed(answer, vectors=answer.vectors[:-4]),
        lambda answer: _changed(answer, vectors=b"\xff" * len(answer.vectors)),  # NaN
        lambda answer: _changed(answer, fingerprint="another"),
    ],
)
async def test_nonsense_is_never_taken_for_vectors(
    embedder: EmbedderClient, script: Script, twist: Callable[[Any], Any]
) -> None:
    script.twist = twist
    with pytest.raises(ServiceError) as caught:
        await embed(embedder, "a", fingerprint=FINGERPRINT)
    assert caught.value.reason is Reason.MODEL_FAILED


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ServiceError(Reason.MODEL_LOADING, "loading", 4.0), Reason.EMBEDDER_UNAVAILABLE),
        (ServiceError(Reason.DRAINING, "stopping"), Reason.EMBEDDER_UNAVAILABLE),
        (ServiceError(Reason.QUEUE_FULL, "full", 2.0), Reason.QUEUE_FULL),
        (ServiceError(Reason.MODEL_MISMATCH, "another"), Reason.MODEL_MISMATCH),
        (ServiceError(Reason.TEXT_TOO_LONG, "long", field="texts[0]"), Reason.TEXT_TOO_LONG),
        (ValueError("a bug"), Reason.MODEL_FAILED),
    ],
)
async def test_what_a_worker_says_becomes_what_the_gateway_says(
    embedder: EmbedderClient, script: Script, raised: Exception, seen: Reason
) -> None:
    script.errors = [raised, raised]  # UNAVAILABLE is tried twice
    with pytest.raises(ServiceError) as caught:
        await embed(embedder, "a")
    assert caught.value.reason is seen
    assert "bug" not in caught.value.message


async def test_unavailable_is_tried_once_more(embedder: EmbedderClient, script: Script) -> None:
    script.errors = [ServiceError(Reason.UNAVAILABLE, "blip")]
    assert (await embed(embedder, "a")).vectors.shape == (1, DIMENSION)
    assert len(script.requests) == 2


async def test_calls_are_spread_evenly_over_a_list_of_replicas() -> None:
    scripts = Script(), Script()
    async with (
        workers.embedder(scripts[0]) as one,
        workers.embedder(scripts[1]) as other,
        channel_to(f"ipv4:{one},{other}", EMBEDDER_SERVICE) as channel,
    ):
        client = EmbedderClient(channel)
        async with asyncio.timeout(30):
            while not all(script.requests for script in scripts):  # both are connected
                await embed(client, "a")
        before = [len(script.requests) for script in scripts]
        for _ in range(20):
            await embed(client, "a")
        assert [len(script.requests) for script in scripts] == [count + 10 for count in before]


async def test_a_large_call_is_tried_once_more_too(
    embedder: EmbedderClient, script: Script
) -> None:
    script.errors = [ServiceError(Reason.UNAVAILABLE, "blip")]
    large = "x" * 1_000_000  # gRPC's own limit for what it keeps to send again: 256 KiB
    assert (await embed(embedder, large)).vectors.shape == (1, DIMENSION)
    assert len(script.requests) == 2


async def test_nobody_there_is_unavailable(unused_tcp_port: int) -> None:
    async with channel_to(f"127.0.0.1:{unused_tcp_port}", EMBEDDER_SERVICE) as channel:
        with pytest.raises(ServiceError) as caught:
            await embed(EmbedderClient(channel), "a")
    assert caught.value.reason is Reason.EMBEDDER_UNAVAILABLE
    assert caught.value.retry_after_s is not None
    assert "127.0.0.1" not in caught.value.message


async def test_bulk_waits_for_a_full_queue_and_interactive_does_not(
    embedder: EmbedderClient, script: Script
) -> None:
    script.errors = [ServiceError(Reason.QUEUE_FULL, "full", 0.01)] * 3
    await embed(embedder, "a", lane="bulk")
    assert len(script.requests) == 4
    script.errors = [ServiceError(Reason.QUEUE_FULL, "full", 0.01)]
    with pytest.raises(ServiceError):
        await embed(embedder, "a")
    script.errors = [ServiceError(Reason.QUEUE_FULL, "full", 60.0)]
    with pytest.raises(ServiceError) as caught:
        await embed(embedder, "a", lane="bulk", deadline=Deadline.after(5))
    assert caught.value.reason is Reason.QUEUE_FULL


async def test_a_model_is_asked_for_once_until_it_is_forgotten(
    embedder: EmbedderClient, script: Script
) -> None:
    model = await embedder.model(soon())
    assert (model.name, model.fingerprint, model.dimension) == ("model", FINGERPRINT, DIMENSION)
    assert await embedder.model(soon()) == model
    assert len(script.requests) == 1
    script.errors = [ServiceError(Reason.MODEL_MISMATCH, "another")]
    with pytest.raises(ServiceError):
        await embed(embedder, "a", fingerprint="old")
    await embedder.model(soon())
    assert len(script.requests) == 3


async def test_scores_come_back_in_order(reranker: RerankerClient) -> None:
    scores = await reranker.score("q", ["abc", "a"], deadline=soon())
    assert scores.values == pytest.approx([1 / 4, 1 / 2])
    assert reranker.known_model is None
    await reranker.model(soon())
    assert str(reranker.known_model) == "reranker@rrrrrrrr"


@pytest.mark.parametrize("scores", [[], [0.5, 0.5], [float("nan")], [1.5], [-0.1]])
async def test_nonsense_is_never_taken_for_scores(
    reranker: RerankerClient, script: Script, scores: list[float]
) -> None:
    script.twist = lambda answer: type(answer)(scores=scores)
    with pytest.raises(ServiceError) as caught:
        await reranker.score("q", ["abc"], deadline=soon())
    assert caught.value.reason is Reason.MODEL_FAILED


async def answer(client: GeneratorClient, deadline: Deadline | None = None) -> list[Any]:
    pieces = client.answer(
        "why?",
        [Passage("text", "title")],
        temperature=0.5,
        max_tokens=None,
        deadline=deadline or soon(),
    )
    return [piece async for piece in pieces]


async def test_an_answer_is_pieces_and_one_completion(
    generator: GeneratorClient, script: Script
) -> None:
    *pieces, last = await answer(generator)
    assert "".join(pieces) == "Because of [1]."
    assert last == Completion("extractive", "model", 0, 3, False, True, False)
    request = script.requests[0]
    assert (request.question, request.passages[0].title) == ("why?", "title")
    assert request.temperature == 0.5
    assert not request.HasField("max_tokens")


async def test_marks_come_with_the_end(generator: GeneratorClient, script: Script) -> None:
    script.twist = lambda ends: [marking((0, 1, 3), (0, 3, 4))]
    *_, last = await answer(generator)
    assert last.spans == (AnswerSpan(0, 1, 3), AnswerSpan(0, 3, 4))


# The one passage is "text".
@pytest.mark.parametrize("span", [(1, 0, 1), (0, 2, 5), (0, 2, 2), (0, 3, 1)])
async def test_a_mark_outside_of_its_passage_is_nonsense(
    generator: GeneratorClient, script: Script, span: tuple[int, int, int]
) -> None:
    script.twist = lambda ends: [marking(span)]
    with pytest.raises(ServiceError) as caught:
        await answer(generator)
    assert caught.value.reason is Reason.MODEL_FAILED


@pytest.mark.parametrize(
    "twist",
    [
        lambda ends: [],
        lambda ends: [*ends, *ends],
        lambda ends: [*ends, generator_pb2.GenerateAnswerResponse(text_delta="more")],
    ],
)
async def test_an_answer_has_exactly_one_end(
    generator: GeneratorClient, script: Script, twist: Callable[[Any], Any]
) -> None:
    script.twist = twist
    with pytest.raises(ServiceError) as caught:
        await answer(generator)
    assert caught.value.reason is Reason.MODEL_FAILED


async def test_closing_the_answer_cancels_the_call(
    generator: GeneratorClient, script: Script
) -> None:
    pieces = generator.answer(
        "why?", [Passage("text")], temperature=None, max_tokens=None, deadline=soon()
    )
    script.pause_after = 1
    async with aclosing(pieces):
        assert await anext(pieces) == "Because "
    await asyncio.wait_for(script.cancelled.wait(), 5)


async def test_a_failure_in_the_middle_is_raised_after_the_pieces(
    generator: GeneratorClient, script: Script
) -> None:
    pieces = generator.answer(
        "why?", [Passage("text")], temperature=None, max_tokens=None, deadline=soon()
    )
    script.errors = [None, ServiceError(Reason.DRAINING, "stopping")]
    async with aclosing(pieces):
        assert await anext(pieces) == "Because "
        with pytest.raises(ServiceError) as caught:
            while True:
                await anext(pieces)
    assert caught.value.reason is Reason.GENERATOR_UNAVAILABLE


def marking(*spans: tuple[int, int, int]) -> generator_pb2.GenerateAnswerResponse:
    marks = [generator_pb2.AnswerSpan(passage=p, start=s, end=e) for p, s, e in spans]
    return generator_pb2.GenerateAnswerResponse(completion=generator_pb2.Completion(spans=marks))


def _changed(answer: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(answer, name, value)
    return answer
