"""The generator worker over a real socket, answering with the passages' own sentences."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from rag.generator.v1 import generator_pb2, generator_pb2_grpc
from support.generator import WordModel, ask, collect, generator

from runtime.answers import NO_ANSWER
from runtime.errors import INTERNAL_MESSAGE, Reason, ServiceError, decode

QUESTION = "Which tool manages Rust projects?"
PASSAGES = (
    "# Cargo\n\nCargo is the tool that manages Rust projects. It builds code. It is old.",
    "Bananas are yellow. They grow in warm countries.",
)


@pytest.fixture
def model() -> WordModel:
    return WordModel()


async def test_a_sentence_answers_with_its_citation(model: WordModel) -> None:
    async with generator(model) as (stub, _):
        pieces, completion = await collect(
            stub.GenerateAnswer(ask(QUESTION, *reversed(PASSAGES)), timeout=10)
        )
    assert "".join(pieces) == "Cargo is the tool that manages Rust projects. [2]"
    assert completion == generator_pb2.Completion(engine="extractive", model="words", answered=True)


async def test_a_question_the_passages_do_not_answer(model: WordModel) -> None:
    async with generator(model) as (stub, _):
        pieces, completion = await collect(
            stub.GenerateAnswer(ask("How tall was Napoleon?", *PASSAGES), timeout=10)
        )
    assert pieces == [NO_ANSWER]
    assert not completion.answered


async def test_passages_of_nothing_but_code_answer_nothing(model: WordModel) -> None:
    async with generator(model) as (stub, _):
        request = ask(QUESTION, "```\ncargo is the tool that manages rust projects\n```")
        pieces, _ = await collect(stub.GenerateAnswer(request, timeout=10))
    assert pieces == [NO_ANSWER]


async def test_the_sentences_read_are_bounded_and_that_is_said(model: WordModel) -> None:
    many = " ".join(f"Sentence number {n} says little." for n in range(40))
    async with generator(model, answer_sentences_read=8) as (stub, _):
        request = ask(QUESTION, many, PASSAGES[0])
        pieces, completion = await collect(stub.GenerateAnswer(request, timeout=10))
    assert pieces == ["Cargo is the tool that manages Rust projects. [2]"]
    assert completion.passages_truncated


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ask(" ", *PASSAGES), "question"),
        (ask("x" * 65_537, *PASSAGES), "question"),
        (ask(QUESTION), "passages"),
        (ask(QUESTION, *["text"] * 201), "passages"),
        (ask(QUESTION, "text", " \n"), "passages[1].text"),
        (ask(QUESTION, "text", temperature=2.1), "temperature"),
        (ask(QUESTION, "text", temperature=float("nan")), "temperature"),
        (ask(QUESTION, "text", max_tokens=0), "max_tokens"),
    ],
)
async def test_a_wrong_request_names_its_field(model: WordModel, request_: Any, field: str) -> None:
    async with generator(model) as (stub, _):
        with pytest.raises(ServiceError) as caught:
            await collect(stub.GenerateAnswer(request_, timeout=10))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.metadata == {"field": field}


async def test_not_loaded_yet(model: WordModel) -> None:
    model.loaded.clear()
    async with generator(model, ready=False) as (_, running):
        async with grpc.aio.insecure_channel(running.target) as channel:
            stub = generator_pb2_grpc.GeneratorServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await collect(stub.GenerateAnswer(ask(QUESTION, *PASSAGES), timeout=10))
        assert decode(caught.value).reason is Reason.MODEL_LOADING
        model.loaded.set()
        assert await running.ready() == "extractive over words (LM_MODEL is not set)"


# Longer than the queue of the tests below: it waits only alone.
LONG = " ".join(f"Sentence number {n} {'says little and ' * 10} ends." for n in range(40))


def call(stub: Any, *passages: str, timeout: float = 20) -> asyncio.Task[Any]:
    return asyncio.create_task(
        collect(stub.GenerateAnswer(ask(QUESTION, *(passages or PASSAGES)), timeout=timeout))
    )


def queued_tokens(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("rag_queue_tokens", {"lane": "interactive"}) or 0.0


async def test_a_full_queue_is_said_at_once_with_when_to_come_back(
    model: WordModel, registry: CollectorRegistry
) -> None:
    async with generator(model, registry=registry, queue_tokens=1024) as (stub, _):
        model.block()
        working = call(stub)
        assert await asyncio.to_thread(model.entered.wait, 10)
        waiting = call(stub, LONG)
        async with asyncio.timeout(10):
            while not queued_tokens(registry):
                await asyncio.sleep(0.001)
        with pytest.raises(ServiceError) as caught:
            await call(stub)
        assert caught.value.reason is Reason.QUEUE_FULL
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 0
        model.open.set()
        assert (await working)[1].answered
        assert not (await waiting)[1].answered


async def test_what_a_caller_who_left_had_asked_is_not_computed(
    model: WordModel, registry: CollectorRegistry
) -> None:
    async with generator(model, registry=registry) as (stub, _):
        model.block()
        working = call(stub)
        assert await asyncio.to_thread(model.entered.wait, 10)
        waiting = call(stub, LONG)
        async with asyncio.timeout(10):
            while not queued_tokens(registry):
                await asyncio.sleep(0.001)
            waiting.cancel()
            while queued_tokens(registry):
                await asyncio.sleep(0.001)
        model.open.set()
        assert (await working)[1].answered


async def test_the_deadline_is_said_by_the_worker_itself(model: WordModel) -> None:
    async with generator(model) as (stub, _):
        model.block()
        with pytest.raises(ServiceError) as caught:
            await call(stub, timeout=0.3)
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        assert caught.value.message == "The time budget of the request ran out."
        model.open.set()


async def test_a_broken_model_is_said(model: WordModel) -> None:
    async with generator(model) as (stub, _):
        model.error = OSError("/secret/path")
        with pytest.raises(ServiceError) as caught:
            await call(stub)
    assert caught.value.reason is Reason.MODEL_FAILED
    assert "secret" not in caught.value.message


async def test_an_unforeseen_error_tells_nothing_of_itself(
    model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(text: str, number: int) -> list[str]:
        raise OSError("/secret/path")

    monkeypatch.setattr("generator_worker.engines.extractive.split_sentences", broken)
    async with generator(model) as (stub, _):
        with pytest.raises(ServiceError) as caught:
            await call(stub)
    assert (caught.value.reason, caught.value.message) == (Reason.INTERNAL, INTERNAL_MESSAGE)


async def test_stopping_finishes_what_runs_and_refuses_the_rest(model: WordModel) -> None:
    async with generator(model) as (stub, running):
        model.block()
        working = call(stub)
        assert await asyncio.to_thread(model.entered.wait, 10)
        async with grpc.aio.insecure_channel(running.target) as channel:
            bare = generator_pb2_grpc.GeneratorServiceStub(channel)
            await channel.channel_ready()
            running.stop()
            async with asyncio.timeout(10):
                reason = None
                while reason is not Reason.UNAVAILABLE:  # it has said GOAWAY
                    try:
                        await call(bare, timeout=0.2)
                    except grpc.aio.AioRpcError as error:
                        reason = decode(error).reason
        model.open.set()
        assert (await working)[1].answered
        await asyncio.wait_for(running.task, 10)
    assert model.closed


async def test_every_series_is_there_from_the_first_scrape(
    model: WordModel, registry: CollectorRegistry
) -> None:
    def read(port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            return str(response.read().decode())

    async with generator(model, registry=registry) as (stub, running):
        before = await asyncio.to_thread(read, running.metrics_port)
        await collect(stub.GenerateAnswer(ask(QUESTION, *PASSAGES), timeout=10))
        after = await asyncio.to_thread(read, running.metrics_port)
    for series in (
        'rag_generator_answers_total{answered="true",engine="extractive"}',
        'rag_generator_answers_total{answered="false",engine="extractive"}',
        "rag_generator_fallbacks_total",
        'rag_generator_tokens_total{kind="prompt"}',
        'rag_generator_tokens_total{kind="completion"}',
        'rag_generator_answer_duration_seconds_count{engine="extractive"}',
        "rag_generator_first_text_seconds_count",
        "rag_generator_waiting",
        "rag_rpcs_in_flight",
    ):
        assert f"{series} 0.0\n" in before
    assert 'rag_generator_answers_total{answered="true",engine="extractive"} 1.0' in after
    assert 'rag_generator_answer_duration_seconds_count{engine="extractive"} 1.0' in after
