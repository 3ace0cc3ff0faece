"""Clients that keep a worker full: many calls in flight, from a process apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import uvloop
from rag.reranker.v1 import reranker_pb2, reranker_pb2_grpc

from bench.concurrency import in_flight
from bench.embedding import over_grpc
from bench.prepared import RERANKER
from bench.reference import Computed, QueryPassages
from runtime.channel import open_channel
from runtime.telemetry import Tracing

TIMEOUT_S: Final = 300.0
# For a GPU: 32 calls of 256 chunks are 900,000 tokens, a dozen of its batches.
TEXTS_A_CALL: Final = 256
CALLS_IN_FLIGHT: Final = 32


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


def scoring_flood(target: str, most: int) -> Callable[[Sequence[QueryPassages]], Computed]:
    """Scores questions by our reranker at `target`, a call each, `most` at a time."""
    return lambda questions: uvloop.run(score_all(target, questions, most))


async def score_all(target: str, questions: Sequence[QueryPassages], most: int) -> Computed:
    """The scores of all pairs, in order."""
    async with open_channel(target, RERANKER, Tracing(None)) as channel:
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        await stub.GetModel(reranker_pb2.GetModelRequest(), timeout=TIMEOUT_S)  # connects

        async def send(question: QueryPassages) -> Sequence[float]:
            request = reranker_pb2.ScorePassagesRequest(
                query=question.query, passages=question.passages, truncate=True
            )
            return (await stub.ScorePassages(request, timeout=TIMEOUT_S)).scores

        started_s = time.perf_counter()
        scores = await in_flight(send, questions, most)
        seconds = time.perf_counter() - started_s
    return Computed(np.concatenate(scores).astype(np.float32), seconds)
