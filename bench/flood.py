"""Clients that keep a GPU full: large calls, many of them in flight, from a process apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

import numpy as np
import uvloop
from rag.reranker.v1 import reranker_pb2, reranker_pb2_grpc

from bench.embedding import over_grpc
from bench.prepared import RERANKER
from bench.reference import Computed, QueryPassages
from runtime.channel import open_channel
from runtime.telemetry import Tracing

TIMEOUT_S: Final = 300.0
# 32 calls of 256 chunks are 900,000 tokens: a dozen of a GPU's batches.
TEXTS_A_CALL: Final = 256
CALLS_IN_FLIGHT: Final = 32
QUESTIONS_IN_FLIGHT: Final = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_flight(
    send: Callable[[Item], Awaitable[Result]], items: Sequence[Item], most: int
) -> list[Result]:
    """The results of all items, in order, `most` at a time. Raises what `send` raises."""
    numbered = iter(enumerate(items))
    results: dict[int, Result] = {}

    async def sender(mine: Iterator[tuple[int, Item]]) -> None:
        for number, item in mine:
            results[number] = await send(item)

    async with asyncio.TaskGroup() as senders:
        for _ in range(most):
            senders.create_task(sender(numbered))
    return [results[number] for number in range(len(items))]


def embedding_flood(target: str) -> Callable[[Sequence[str]], Computed]:
    """Embeds texts in the bulk lane of our embedder at `target`."""

    async def embed(texts: Sequence[str]) -> Computed:
        calls = [texts[at : at + TEXTS_A_CALL] for at in range(0, len(texts), TEXTS_A_CALL)]
        async with over_grpc(target) as send:
            started_s = time.perf_counter()
            answers = await in_flight(lambda call: send(call, bulk=True), calls, CALLS_IN_FLIGHT)
            seconds = time.perf_counter() - started_s
        return Computed(np.concatenate([answer.vectors for answer in answers]), seconds)

    return lambda texts: uvloop.run(embed(texts))


def scoring_flood(target: str) -> Callable[[Sequence[QueryPassages]], Computed]:
    """Scores questions by our reranker at `target`, a call each."""

    async def score(questions: Sequence[QueryPassages]) -> Computed:
        async with open_channel(target, RERANKER, Tracing(None)) as channel:
            stub = reranker_pb2_grpc.RerankerServiceStub(channel)
            await stub.GetModel(reranker_pb2.GetModelRequest(), timeout=TIMEOUT_S)  # connects

            async def send(question: QueryPassages) -> Sequence[float]:
                request = reranker_pb2.ScorePassagesRequest(
                    query=question.query, passages=question.passages, truncate=True
                )
                return (await stub.ScorePassages(request, timeout=TIMEOUT_S)).scores

            started_s = time.perf_counter()
            scores = await in_flight(send, questions, QUESTIONS_IN_FLIGHT)
            seconds = time.perf_counter() - started_s
        return Computed(np.concatenate(scores).astype(np.float32), seconds)

    return lambda questions: uvloop.run(score(questions))
